"""A machine on Google Compute Engine: started before a training, stopped after it."""

import logging
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from recsys_ops.errors import RecsysError, SettingsError, WorkerError
from recsys_ops.launchers.google_rest import GoogleRest
from recsys_ops.settings import GceSettings

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 600
_NEEDS = (
    "compute.instances.get, compute.instances.start, compute.instances.resume, "
    "compute.instances.stop and compute.zoneOperations.get, "
    "all in roles/compute.instanceAdmin.v1"
)
# a machine with local SSDs does not stop without it; a training keeps its files in storage
_PARAMETERS = {"stop": {"discardLocalSsd": "true"}}


def start_machine(settings: GceSettings, conn_id: str) -> dict[str, Any]:
    """Start the machine, wait until it runs, and return its figures.

    A machine that runs or starts already is not started again.

    Raises WorkerError if Google has no such machine free or if it does not run after
    `start_timeout_s`; SettingsError if it does not exist or the account may not start it. It may
    still start after an error: see `request_stop`.
    """
    began = time.monotonic()
    machine = _Machine(settings, conn_id)
    instance, requested = machine.bring_to(
        {"RUNNING"}, {"TERMINATED": "start", "SUSPENDED": "resume"}, settings.start_timeout_s
    )
    if requested and "maxRunDuration" not in instance.get("scheduling", {}):
        log.warning(
            "only the task stop_machine stops %s: if Airflow dies, it runs on and bills. "
            "Give it a time limit of its own while it is stopped: gcloud compute instances "
            "set-scheduling %s --max-run-duration=4h --instance-termination-action=STOP",
            machine.name,
            machine.flags,
        )
    return {
        **_description(settings, instance),
        "already_running": not requested,
        "start_s": round(time.monotonic() - began, 1),
    }


def stop_machine(settings: GceSettings, conn_id: str) -> dict[str, Any]:
    """Stop the machine, wait until it is stopped, and return its figures.

    A machine that is stopped or stops already is not stopped again.

    Raises WorkerError if it is not stopped after ten minutes; SettingsError if it does not exist or
    the account may not stop it.
    """
    began = time.monotonic()
    machine = _Machine(settings, conn_id)
    instance, requested = machine.bring_to(
        {"TERMINATED", "SUSPENDED"}, {"RUNNING": "stop"}, _STOP_TIMEOUT_S
    )
    return {
        **_description(settings, instance),
        "already_stopped": not requested,
        "stop_s": round(time.monotonic() - began, 1),
    }


def request_stop(settings: GceSettings, conn_id: str) -> None:
    """Request the machine's stop without waiting for it.

    Does nothing if it is stopped or stops already. Errors are logged.
    """
    try:
        machine = _Machine(settings, conn_id)
        if machine.status() not in {"TERMINATED", "SUSPENDED", "STOPPING", "SUSPENDING"}:
            machine.request("stop")
    except RecsysError as error:
        log.error(
            "the machine could not be asked to stop: %s. If it runs, it bills: stop it by hand",
            error,
        )


class _Machine:
    def __init__(self, settings: GceSettings, conn_id: str) -> None:
        self.name = f"{settings.instance} (zone {settings.zone}, project {settings.project})"
        self.flags = f"{settings.instance} --zone={settings.zone} --project={settings.project}"
        self._rest = GoogleRest(settings.endpoint, conn_id, needs=_NEEDS)
        self._zone = f"compute/v1/projects/{settings.project}/zones/{settings.zone}"
        self._instance = f"{self._zone}/instances/{settings.instance}"

    def status(self) -> str:
        return str(self._call("GET", self._instance)["status"])

    def bring_to(
        self, wanted: Collection[str], actions: Mapping[str, str], timeout_s: float
    ) -> tuple[dict[str, Any], bool]:
        """Wait until the instance has a wanted status; request an action where it needs one.

        actions : by status the action that leads to a wanted one; with any other status we only
            wait

        Returns the instance, and whether an action was requested.
        """
        operation: dict[str, Any] | None = None
        requested = False
        for _ in _turns(timeout_s):
            if operation:
                operation = self._call("GET", f"{self._zone}/operations/{operation['name']}")
                if operation["status"] != "DONE":
                    continue
                self._check(operation)
                operation = None
            instance = self._call("GET", self._instance)
            if instance["status"] in wanted:
                return instance, requested
            if action := actions.get(instance["status"]):
                operation, requested = self.request(action), True
        raise WorkerError(
            f"{self.name} is not {' or '.join(sorted(wanted))} after {timeout_s:.0f} s; its page "
            "in the console says why, and worker.gce.start_timeout_s limits how long a start may "
            "take"
        )

    def request(self, action: str) -> dict[str, Any]:
        """Request ``start``, ``resume`` or ``stop``; returns the operation that does it."""
        log.info("%s is asked to %s", self.name, action)
        # by its id a request that is repeated because the answer was lost is done only once
        parameters = {"requestId": str(uuid.uuid4()), **_PARAMETERS.get(action, {})}
        operation: dict[str, Any] = self._call(
            "POST", f"{self._instance}/{action}", params=parameters
        )
        return operation

    def _check(self, operation: dict[str, Any]) -> None:
        """Raise WorkerError for an operation that has failed."""
        errors = operation.get("error", {}).get("errors", [])
        if errors:
            reasons = "; ".join(f"{error['code']}: {error.get('message', '')}" for error in errors)
            raise WorkerError(
                f"{self.name} did not {operation['operationType']}: {reasons}. If the zone has no "
                "such machine free, try later, reserve one, or name a machine in another zone in "
                "worker.gce; if a quota is used up, ask Google for more"
            )

    def _call(self, method: str, path: str, **request: Any) -> Any:
        try:
            return self._rest.call(method, path, **request)
        except SettingsError as error:
            raise SettingsError(f"{self.name} cannot be used, see worker.gce: {error}") from error


def _description(settings: GceSettings, instance: Mapping[str, Any]) -> dict[str, str]:
    return {
        "instance": settings.instance,
        "zone": settings.zone,
        "machine_type": instance["machineType"].rpartition("/")[2],
    }


def _turns(seconds: float) -> Iterator[None]:
    """Turns of a loop for this many seconds, with pauses that grow from 0.1 to 5 s."""
    deadline, pause = time.monotonic() + seconds, 0.1
    while True:
        yield
        if time.monotonic() + pause > deadline:
            return
        time.sleep(pause)
        pause = min(1.5 * pause, 5.0)
