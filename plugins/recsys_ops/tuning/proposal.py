"""The proposal in force: whether a run trains with the settings that a study found."""

from datetime import date
from typing import TYPE_CHECKING

from recsys_ops.settings import Settings
from recsys_ops.storage import paths

if TYPE_CHECKING:
    from recsys_ops.storage.objects import Storage

PROPOSAL = "proposal.json"
_TAKEN_UP = "taken_up.json"


def with_adopted_proposal(
    store: "Storage", settings: Settings, day: date
) -> tuple[Settings, date | None]:
    """The settings with the newest proposal that holds for the run of `day`, and its study's day; None where none does.

    It holds when ``tuning.adopt`` is true, its study is of an earlier day and found it better, recsys.yaml says what it said
    then of whatever may be searched, and the gate has not refused the first version made with it on a day before.
    """
    from recsys_ops.tuning.study import applied, current

    if not settings.tuning.adopt:
        return settings, None
    here = current(settings.training, settings.confidence)
    for study in _proposals(store, day):
        proposal = store.read_json(paths.study(study, PROPOSAL))
        if (
            proposal["better"]
            and proposal["configured"] == here
            and not _refused(store, study, day)
        ):
            found = {
                f"{section}.{key}": value
                for section, keys in proposal["settings"].items()
                for key, value in keys.items()
            }
            training, confidence = applied(settings.training, settings.confidence, found)
            return settings.model_copy(
                update={"training": training, "confidence": confidence}
            ), study
    return settings, None


def record_first_use(store: "Storage", study: date, day: date, version: str) -> None:
    """Note the first version that is made with a proposal: by its verdict the proposal stands or falls."""
    path = paths.study(study, _TAKEN_UP)
    if not store.exists(path) or store.read_json(path)["day"] == str(day):
        store.write_json(path, {"day": day, "version": version})


def _proposals(store: "Storage", day: date) -> list[date]:
    """The days before `day` that have a proposal, the newest first."""
    parts = [path.split("/") for path in store.list(paths.STUDIES)]
    days = [
        date.fromisoformat(part[1].removeprefix("day=")) for part in parts if part[-1] == PROPOSAL
    ]
    return sorted((study for study in days if study < day), reverse=True)


def _refused(store: "Storage", study: date, day: date) -> bool:
    path = paths.study(study, _TAKEN_UP)
    if not store.exists(path):
        return False
    first = store.read_json(path)
    verdict = paths.model(first["version"], "verdict.json")
    if date.fromisoformat(first["day"]) >= day or not store.exists(verdict):
        return False
    found = store.read_json(verdict)
    return found["blessed"] is not True and not found["forced"]
