"""The adopted proposal: whether a run trains with the settings that a study found."""

from datetime import date
from typing import TYPE_CHECKING

from recsys_ops.models.files import VERDICT
from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from recsys_ops.storage.objects import Storage

PROPOSAL = "proposal.json"
_TAKEN_UP = "taken_up.json"


def with_adopted_proposal(
    store: "Storage", settings: Settings, day: date
) -> tuple[Settings, date | None]:
    """The settings with the newest valid proposal, and the day of its study; None without one.

    A proposal is valid for the run of `day` if

    - ``tuning.adopt`` is true,
    - its study is of an earlier day and found it better than the settings in recsys.yaml,
    - all settings that may be searched have the same value in recsys.yaml as then, and
    - the gate has not refused the first version that was trained with it on an earlier day.
    """
    from recsys_ops.tuning.study import searchable_values, with_values

    if not settings.tuning.adopt:
        return settings, None
    configured = searchable_values(settings.training, settings.confidence)
    for study in _proposals(store, day):
        path = paths.study(study, PROPOSAL)
        proposal = store.read_record(path, "better", "configured", "settings")
        if (
            proposal["better"]
            and proposal["configured"] == configured
            and not _refused(store, study, day)
        ):
            values = {
                f"{section}.{key}": value
                for section, keys in proposal["settings"].items()
                for key, value in keys.items()
            }
            training, confidence = with_values(settings.training, settings.confidence, values)
            return settings.model_copy(
                update={"training": training, "confidence": confidence}
            ), study
    return settings, None


def record_first_use(store: "Storage", study: date, day: date, version: str) -> None:
    """Record the first version that is trained with a proposal; its verdict decides about both."""
    path = paths.study(study, _TAKEN_UP)
    if not store.exists(path) or store.read_record(path, "day")["day"] == str(day):
        store.write_json(path, {"day": day, "version": version})


def _proposals(store: "Storage", day: date) -> list[date]:
    """The days before `day` that have a proposal, the newest first."""
    parsed = map(paths.parse, store.list(paths.STUDIES))
    days = [found.day for found in parsed if found and found.name == PROPOSAL and found.day < day]
    return sorted(days, reverse=True)


def _refused(store: "Storage", study: date, day: date) -> bool:
    """Whether the gate refused the proposal's first version on a day before `day`."""
    path = paths.study(study, _TAKEN_UP)
    if not store.exists(path):
        return False
    first = store.read_record(path, "day", "version")
    verdict_path = paths.model(first["version"], VERDICT)
    if date.fromisoformat(first["day"]) >= day or not store.exists(verdict_path):
        return False
    verdict = store.read_record(verdict_path, "blessed", "forced")
    return verdict["blessed"] is not True and not verdict["forced"]
