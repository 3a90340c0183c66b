"""One cleaning step: kept rows on to the next step, rejected rows to quarantine with their reasons."""

from datetime import date
from typing import TYPE_CHECKING, Any

from recsys_ops import paths
from recsys_ops.errors import DataError
from recsys_ops.operators.base import DayOperator, storage
from recsys_ops.settings import CleaningSettings, Settings, include_dir

if TYPE_CHECKING:
    import polars as pl
    from airflow.sdk import Context

    from recsys_ops.cleaning import Cleaned


class CleaningStepOperator(DayOperator):
    """Apply the cleaning function named like the task to what `reads` (``raw`` or an earlier step) left of the day.

    Fails when a larger share of the rows than `max_quarantine_share` is rejected; those rows are in quarantine by then.
    """

    def __init__(self, *, reads: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reads = reads

    def run(self, day: date, settings: Settings, context: "Context") -> dict[str, Any]:
        store, step = storage(settings), self.name
        source = paths.raw(day) if self.reads == "raw" else paths.step(self.reads, day)
        frame, metadata = store.read_parquet_with_metadata(source)
        cleaned = clean(step, frame, settings.cleaning)
        kept, rejected = cleaned.kept.height, cleaned.rejected.height
        if kept + rejected != frame.height:
            raise DataError(f"{step} {day}: {frame.height} rows in, {kept} kept and {rejected} rejected do not add up")
        store.write_parquet(paths.quarantine(step, day), cleaned.rejected)
        reasons = dict(sorted(cleaned.rejected["reason"].value_counts().iter_rows()))
        if rejected > settings.cleaning.max_quarantine_share * frame.height:
            store.delete(paths.step(step, day))  # an earlier run's rows must not pass for this one's
            raise DataError(
                f"{step} {day}: {rejected} of {frame.height} rows rejected, more than cleaning.max_quarantine_share = "
                f"{settings.cleaning.max_quarantine_share}. Reasons: {reasons}. "
                f"The rows: {store.url(paths.quarantine(step, day))}. Mend the source, include/contract.yaml or the settings."
            )
        store.write_parquet(paths.step(step, day), cleaned.kept, {"first_day": metadata["first_day"]})
        return {"rows_in": frame.height, "kept": kept, "rejected": rejected, "reasons": reasons, **cleaned.notes}


def clean(step: str, frame: "pl.DataFrame", settings: CleaningSettings) -> "Cleaned":
    from recsys_ops import cleaning

    contract = cleaning.load_contract(include_dir() / settings.contract)
    match step:
        case "align_schema":
            return cleaning.align_schema(frame, contract)
        case "fix_types":
            return cleaning.fix_types(frame, contract)
        case "filter_crawlers":
            return cleaning.filter_crawlers(frame, settings.crawlers)
        case "filter_bots":
            return cleaning.filter_bots(frame, settings.bots)
        case "filter_staff":
            return cleaning.filter_staff(frame, settings.staff)
    raise DataError(f"no cleaning step is named {step!r}; name the task after a function of recsys_ops.cleaning")
