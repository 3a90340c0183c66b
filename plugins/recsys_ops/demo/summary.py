"""The figures of a finished demo, gathered from the stores, and the page that shows them."""

import textwrap
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import redis
import sqlalchemy as sa

from recsys_ops.demo.truth import expected_step
from recsys_ops.history.table import current_version, read_events
from recsys_ops.ingest.steps import STEPS
from recsys_ops.models.deployments import list_deployments
from recsys_ops.models.files import METRICS, VERDICT
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import load_settings
from recsys_ops.storage import paths
from recsys_ops.storage.generations import current_generation
from recsys_ops.storage.objects import Storage

WIDTH = 100  # columns of the page

Tasks = Mapping[str, Mapping[str, Mapping[str, Any]]]


def gather(home: Path, engine: sa.Engine, redis_port: int, tasks: Tasks) -> dict[str, Any]:
    """All figures of the demo, as ``summary.json`` has them.

    tasks : for each run, named ``<dag> <day>``, Airflow's task instances by task id
    """
    storage = Storage(f"file://{home}/blob")
    with engine.connect() as connection:
        truth = pl.read_database(
            sa.text("SELECT line_id::text AS row_id, label, detail FROM truth.lines"), connection
        )
    ingested = [
        date.fromisoformat(run.split()[1]) for run in tasks if run.startswith("recsys_ingest")
    ]
    live = list_deployments(storage)
    return {
        "cleaning": cleaning(storage, ingested, truth),
        "history": history(storage, engine),
        "models": [model(storage, deployment["version"]) for deployment in live],
        "people": people(
            storage, redis.Redis(port=redis_port), date.fromisoformat(live[-1]["day"])
        ),
        "items": items(storage, redis.Redis(port=redis_port), date.fromisoformat(live[-1]["day"])),
        "seconds": {
            run: {name: _seconds(task) for name, task in instances.items()}
            for run, instances in tasks.items()
        },
    }


def cleaning(storage: Storage, days: list[date], truth: pl.DataFrame) -> list[dict[str, Any]]:
    """For each cleaning step, over the runs of `days`: rows in, rows kept, rejections by reason.

    Precision and recall compare the rejected rows with the planted ones.
    """
    raw = pl.concat(
        storage.read_parquet(current_generation(storage, paths.RAW, day)).select(
            pl.col("row_id").cast(pl.String), run=pl.lit(day)
        )
        for day in days
    )
    planted = raw.join(
        truth.with_columns(step=expected_step(pl.col("label"), pl.col("detail"))),
        on="row_id",
        how="left",
    )
    rows = []
    for step in STEPS:
        reports = [storage.read_json(paths.report(step, day)) for day in days]
        rejected = pl.concat(
            storage.read_parquet(paths.quarantine(step, day)).select(
                pl.col("row_id").cast(pl.String), "reason", run=pl.lit(day)
            )
            for day in days
        )
        labelled = rejected.join(planted, on=["row_id", "run"], how="left")
        expected, right = planted.filter(step=step).height, labelled.filter(step=step).height
        rows.append(
            {
                "step": step,
                "rows_in": sum(report["rows_in"] for report in reports),
                "kept": sum(report["kept"] for report in reports),
                "rejected": rejected.height,
                "reasons": dict(rejected["reason"].value_counts(sort=True).iter_rows()),
                "planted": expected,
                "precision": right / rejected.height if rejected.height else 1.0,
                "recall": right / expected if expected else 1.0,
                "customers_rejected": labelled.filter(label="human").height,
            }
        )
    return rows


def history(storage: Storage, engine: sa.Engine) -> dict[str, int]:
    """The number of rows in the history, and how many of the planted good rows it has.

    Of the good rows, those that reached the database late are also counted apart.
    """
    good = sa.text(
        "SELECT event_id, COALESCE(product_id, sku) AS item_id, "
        "visible_on > (recorded_at AT TIME ZONE 'UTC')::date AS late "
        "FROM events JOIN truth.lines USING (line_id) WHERE label = 'human'"
    )
    with engine.connect() as connection:
        planted = pl.read_database(good, connection)
    rows = read_events(storage, date.min, date.max, version=current_version(storage))
    present = planted.join(rows, on=["event_id", "item_id"], how="semi")
    return {
        "rows": rows.height,
        "planted": planted.height,
        "found": present.height,
        "planted_late": int(planted["late"].sum()),
        "found_late": int(present["late"].sum()),
    }


def model(storage: Storage, version: str) -> dict[str, Any]:
    """The metrics of a version, of popularity and of its champion, and the gate's verdict."""
    metrics, verdict = (
        storage.read_json(paths.model(version, name)) for name in (METRICS, VERDICT)
    )
    shown = [f"{name}@{metrics['cutoffs'][-1]}" for name in ("ndcg", "map", "recall", "precision")]
    return {
        "version": version,
        "users_evaluated": metrics["users"],
        "metrics": {
            name: {key: metrics[name][key] for key in shown}
            for name in ("challenger", "champion", "popularity")
            if metrics[name] is not None
        },
        "verdict": verdict["summary"],
    }


def people(storage: Storage, client: redis.Redis, day: date) -> list[dict[str, Any]]:
    """Three customers and an unknown user: last purchases and carts, and the lists in Redis."""
    store = RecommendationStore(client, load_settings().serving)
    title = dict(
        storage.read_parquet(current_generation(storage, paths.CATALOGUE, day))
        .select("item_id", "title")
        .iter_rows()
    )
    liked = read_events(storage, date.min, day, version=current_version(storage)).filter(
        pl.col("event_type").is_in(["purchase", "cart"])
    )
    item_counts = (
        liked.group_by("user_id")
        .agg(pl.col("item_id").n_unique())
        .filter(pl.col("item_id").is_between(6, 12))
    )
    candidates = item_counts.sort("user_id")["user_id"]
    chosen = candidates.gather_every(max(1, candidates.len() // 3))[:3].to_list()
    rows = []
    for user in [*chosen, "unknown user"]:
        answer = store.recommendations(user)
        last = (
            liked.filter(user_id=user)
            .sort("event_time", descending=True)["item_id"]
            .unique(maintain_order=True)
        )
        rows.append(
            {
                "user": user,
                "source": answer.source,
                "version": answer.version,
                "did": [title.get(item, item) for item in last],
                "gets": [title[item] for item in answer.items],
            }
        )
    return rows


def items(storage: Storage, client: redis.Redis, day: date) -> list[dict[str, Any]]:
    """The lists of a popular item, of its category and of the shop, as Redis has them now."""
    store = RecommendationStore(client, load_settings().serving)
    products = {
        item: (title, category)
        for item, title, category in storage.read_parquet(
            current_generation(storage, paths.CATALOGUE, day)
        )
        .select("item_id", "title", "category")
        .rows()
    }
    item = next(
        (
            item
            for item in store.popular().items
            if store.bought_together(item).source == "bought_together"
        ),
        store.popular().items[0],
    )
    title, category = products[item]
    shown = {
        f"like {title}": store.similar(item),
        f"bought together with {title}": store.bought_together(item),
        f"popular in {category}": store.popular(category),
        "trending": store.trending(),
    }
    return [
        {
            "list": name,
            "source": answer.source,
            "version": answer.version,
            "gets": [products[item][0] for item in answer.items],
        }
        for name, answer in shown.items()
    ]


def render(figures: Mapping[str, Any]) -> str:
    """The figures as a page of Markdown that is at most 100 columns wide."""
    lines = ["# The demo shop", "", "## Cleaning, all four ingests together", ""]
    lines += _table(
        ["step", "rows in", "kept", "rejected", "planted", "precision", "recall"],
        [
            [row["step"]]
            + [f"{row[name]:,}" for name in ("rows_in", "kept", "rejected", "planted")]
            + [f"{row[name]:.1%}" for name in ("precision", "recall")]
            for row in figures["cleaning"]
        ],
    )
    lines += ["", "Reasons:", ""]
    for row in figures["cleaning"]:
        reasons = ", ".join(f"{name} {count:,}" for name, count in row["reasons"].items())
        lines += _wrap(f"- {row['step']}: {reasons}")
    history = figures["history"]
    lines.append("")
    lines += _wrap(
        f"History: {history['rows']:,} rows. It has {history['found']:,} of {history['planted']:,} "
        f"planted good rows, among them {history['found_late']:,} of {history['planted_late']:,} "
        "that reached the database a day or two late."
    )
    for model in figures["models"]:
        users = f"{model['users_evaluated']:,} users' next day"
        lines += ["", f"## Model {model['version']}, on {users}", ""]
        names = list(model["metrics"]["challenger"])
        lines += _table(
            ["", *names],
            [
                [name, *(f"{values[key]:.4f}" for key in names)]
                for name, values in model["metrics"].items()
            ],
        )
        lines += ["", *_wrap(f"Gate: {model['verdict']}")]
    lines += ["", "## Recommendation lists, read from Redis"]
    for user in figures["people"]:
        lines += ["", f"**{user['user']}** ({user['source']}, version {user['version']})", ""]
        if user["did"]:
            lines += _wrap(f"- bought or put into the cart: {', '.join(user['did'][:6])}")
        lines += _wrap(f"- gets: {_some(user['gets'])}")
    lines += ["", f"Lists of items, version {figures['items'][0]['version']}:", ""]
    for shown in figures["items"]:
        lines += _wrap(f"- {shown['list']}: {_some(shown['gets'])}")
    lines += ["", "## Seconds in Airflow", ""]
    for run, tasks in figures["seconds"].items():
        seconds = ", ".join(f"{name} {value:.1f}" for name, value in tasks.items())
        lines += _wrap(f"- {run}: {seconds}")
    return "\n".join(lines) + "\n"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table whose first column is text and whose other columns are numbers."""
    widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for first, *numbers in [header, rule, *rows]:
        cells = [first.ljust(widths[0])]
        cells += [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _wrap(line: str) -> list[str]:
    indent = "  " if line.startswith("- ") else ""
    return textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _some(titles: list[str]) -> str:
    more = len(titles) - 6
    return ", ".join(titles[:6]) + (f" and {more} more" if more > 0 else "")


def _seconds(task: Mapping[str, Any]) -> float:
    """From the task's start to its end, as Airflow recorded them."""
    start, end = (datetime.fromisoformat(task[name]) for name in ("start_date", "end_date"))
    return round((end - start).total_seconds(), 1)
