"""Slices: reads days of events some hours at a time, in short queries and little memory."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import polars as pl
import pyarrow as pa
import sqlalchemy as sa

from recsys_ops.errors import DataError, StorageError
from recsys_ops.run_day import day_start
from recsys_ops.source.columns import as_common, common_schema
from recsys_ops.source.database import Query, open_query
from recsys_ops.source.sql import as_query

log = logging.getLogger(__name__)


def extract_slices(
    url: sa.URL,
    sql: str,
    days: Sequence[date],
    *,
    hours: int,
    connections: int,
    timeout_s: int,
    folder: Path,
) -> tuple[pl.LazyFrame, dict[date, int]]:
    """Run the query for each slice of `hours` of the days.

    days : ascending; days may be missing in between.
    sql : selects between ``:start`` and ``:end``, and delivers the column `recorded_at`.
    connections : how many slices are read at a time.
    folder : empty, on the local disk; the returned frame reads the Arrow files in it.

    Returns the rows of all slices in order, lazily, and their number by day. A column has one type,
    text if the types of the slices differ, and is null in slices that lack it. Memory holds one
    batch of the driver for each connection, however many days there are.

    Each slice is a short transaction of its own. Together they are no snapshot. None is needed: new
    rows get a later `recorded_at` than a day that is over, and the next run reads corrected rows
    again.

    Raises SourceError and DataError as `database.open_query` does, DataError when `recorded_at` or
    one of the parameters is missing, and StorageError when `folder` is full.
    """
    query = sa.text(as_query(sql, url.get_backend_name()))
    if lacks := {"start", "end"} - query.compile().params.keys():
        raise DataError(
            f"the events query does not name :{' and :'.join(sorted(lacks))}, so each slice would "
            "deliver rows of the others; compare recorded_at with both in include/sql"
        )
    files: list[tuple[Path, pl.Schema]] = []
    schemas: list[pl.Schema] = []
    rows = dict.fromkeys(days, 0)
    with ExitStack() as stack:
        free: SimpleQueue[Query] = SimpleQueue()
        for _ in range(connections):
            free.put(stack.enter_context(open_query(url, sql, timeout_s=timeout_s)))
        pool = stack.enter_context(ThreadPoolExecutor(connections))
        windows = [window for day in days for window in cut(day, hours)]
        for (start, end), batches in zip(
            windows, pool.map(partial(_read_slice, free, folder), windows), strict=True
        ):
            files += [(file, schema) for file, schema, height in batches if height]
            schemas += [schema for _, schema, _ in batches if schema not in schemas]
            rows[start.date()] += sum(height for _, _, height in batches)
            if end.date() > start.date():
                log.info("read %s, rows=%s", start.date(), f"{rows[start.date()]:,}")
    common = pl.Schema(common_schema(schemas))
    for file, schema in files:
        if schema != common:
            with _write_errors(folder):
                _write(
                    file,
                    pl.read_ipc(file.read_bytes()).select(as_common(schema, common)).to_arrow(),
                )
    return pl.scan_ipc([file for file, _ in files]) if files else pl.LazyFrame(schema=common), rows


def _read_slice(
    free: "SimpleQueue[Query]", folder: Path, window: tuple[datetime, datetime]
) -> list[tuple[Path, pl.Schema, int]]:
    """Read a slice over a free connection.

    Returns the file, the schema and the number of rows of each batch.
    """
    batches = []
    query = free.get()
    try:
        for number, table in enumerate(query(dict(zip(("start", "end"), window, strict=True)))):
            if "recorded_at" not in table.column_names:
                raise DataError(
                    "the events query delivers no column recorded_at, by which days are cut; "
                    "add it in include/sql"
                )
            file = folder / f"{window[0]:%Y%m%dT%H}-{number}.arrow"
            batches.append((file, pl.Schema(table.schema), table.num_rows))
            if table.num_rows:
                with _write_errors(folder):
                    _write(file, table)
    except DataError as error:
        raise DataError(f"{error} (in the slice from {window[0]:%Y-%m-%d %H:%M} on)") from None
    finally:
        free.put(query)
    return batches


def _write(file: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(
        file, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
    ) as writer:
        writer.write_table(table)


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(
            f"cannot write a slice to {folder}: {error}; free disk space there or set TMPDIR"
        ) from error


def cut(day: date, hours: int) -> Iterator[tuple[datetime, datetime]]:
    """The start and end of each slice of a day; the last slice may be shorter."""
    start, end = day_start(day), day_start(day + timedelta(days=1))
    while start < end:
        first, start = start, min(start + timedelta(hours=hours), end)
        yield first, start
