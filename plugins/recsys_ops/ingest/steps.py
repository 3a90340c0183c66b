"""The cleaning steps in the order of their tasks.

A new filter is one line in `STEPS` and one line in ``dags/recsys_ingest.py``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from recsys_ops import cleaning
from recsys_ops.cleaning import Cleaned
from recsys_ops.errors import DataError
from recsys_ops.settings import CleaningSettings, include_dir

EXTRACT = "extract_delta"


@dataclass(frozen=True)
class Step:
    """A cleaning step, which is a task of the DAG ``recsys_ingest``.

    name : the task's id. The step's report and its objects in storage have the same name.
    function : takes the rows and the settings, returns the kept and the rejected rows.
    reads : the task that wrote the rows: `EXTRACT` or a step with `writes_rows`. The function gets
        these rows without those that the steps in between rejected.
    writes_rows : write the kept rows. Otherwise only the indices of the rejected rows are written.
    counts_as : the share in the day profile to which the step's rejections belong, if any.
    repeat : for a step that changes rows without writing them: its function once more, with the
        indices of the rows to reject. None: the kept rows are as the step read them.
    """

    name: str
    function: Callable[[pl.LazyFrame, CleaningSettings], Cleaned]
    reads: str = "fix_types"
    writes_rows: bool = False
    counts_as: Literal["quarantine_share", "bot_share"] | None = None
    repeat: Callable[[pl.LazyFrame, CleaningSettings, pl.Series], Cleaned] | None = None


def _align_schema(
    rows: pl.LazyFrame, settings: CleaningSettings, rejected: pl.Series | None = None
) -> Cleaned:
    return cleaning.align_schema(rows, contract_of(settings), rejected)


def _fix_types(rows: pl.LazyFrame, settings: CleaningSettings) -> Cleaned:
    return cleaning.fix_types(rows, contract_of(settings))


def contract_of(settings: CleaningSettings) -> cleaning.Contract:
    """The contract that the settings name."""
    return cleaning.load_contract(include_dir() / settings.contract)


_STEPS = (
    Step(
        "align_schema",
        _align_schema,
        reads=EXTRACT,
        counts_as="quarantine_share",
        repeat=_align_schema,
    ),
    Step("fix_types", _fix_types, reads=EXTRACT, writes_rows=True, counts_as="quarantine_share"),
    Step("deduplicate", lambda rows, _: cleaning.deduplicate(rows)),
    Step(
        "filter_crawlers",
        lambda rows, settings: cleaning.filter_crawlers(rows, settings.crawlers),
        counts_as="bot_share",
    ),
    Step(
        "filter_bots",
        lambda rows, settings: cleaning.filter_bots(rows, settings.bots),
        counts_as="bot_share",
    ),
    Step("filter_staff", lambda rows, settings: cleaning.filter_staff(rows, settings.staff)),
)
STEPS = {step.name: step for step in _STEPS}
LAST_STEP = _STEPS[-1].name
# the steps that reject rows for who made them
FILTERS = _STEPS[_STEPS.index(STEPS["deduplicate"]) + 1 :]


def find_step(name: str) -> Step:
    """The step of this name. Raises DataError when there is none."""
    if name not in STEPS:
        raise DataError(f"no cleaning step is named {name}: the steps are {', '.join(STEPS)}")
    return STEPS[name]


def step_before(step: Step) -> Step | None:
    """The step whose kept rows a step gets; None for the first."""
    index = _STEPS.index(step)
    return _STEPS[index - 1] if index else None


def steps_after(step: Step) -> tuple[Step, ...]:
    return _STEPS[_STEPS.index(step) + 1 :]
