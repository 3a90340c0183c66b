"""A machine on Google Compute Engine: started for a training, stopped after it."""

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
    "compute.instances.get, compute.instances.start, compute.instances.resume, compute.instances.stop and "
    "compute.zoneOperations.get, all in roles/compute.instanceAdmin.v1"
)
# what a training needs lies in blob storage, and a machine with local SSDs stops only when told what becomes of them
_PARAMETERS = {"stop": {"discardLocalSsd": "true"}}


def start_machine(settings: GceSettings, conn_id: str) -> dict[str, Any]:
    """Bring the machine up and return its figures; asks for nothing where it is up or on its way there.

    Raises WorkerError when Google has none to give or it is not up after `start_timeout_s`, SettingsError when there is no such
    machine or the account may not start it. It may then still come up: see `ask_to_stop`.
    """
    began = time.monotonic()
    machine = _Machine(settings, conn_id)
    instance, asked = machine.bring_to(
        {"RUNNING"}, {"TERMINATED": "start", "SUSPENDED": "resume"}, settings.start_timeout_s
    )
    if asked and "maxRunDuration" not in instance.get("scheduling", {}):
        log.warning(
            "nothing but stop_machine stops %s: should Airflow die, it goes on and bills. Give it an end of its own while it is "
            "down: gcloud compute instances set-scheduling %s --max-run-duration=4h --instance-termination-action=STOP",
            *(machine.name, machine.flags),
        )
    return {
        **_described(settings, instance),
        "already_running": not asked,
        "start_s": round(time.monotonic() - began, 1),
    }


def stop_machine(settings: GceSettings, conn_id: str) -> dict[str, Any]:
    """Bring the machine down, wait until it is, and return its figures; asks for nothing where it is down or on its way there.

    Raises WorkerError when it is not down after ten minutes, SettingsError when there is no such machine or the account may not
    stop it.
    """
    began = time.monotonic()
    machine = _Machine(settings, conn_id)
    instance, asked = machine.bring_to(
        {"TERMINATED", "SUSPENDED"}, {"RUNNING": "stop"}, _STOP_TIMEOUT_S
    )
    return {
        **_described(settings, instance),
        "already_stopped": not asked,
        "stop_s": round(time.monotonic() - began, 1),
    }


def request_stop(settings: GceSettings, conn_id: str) -> None:
    """Ask for the machine's stop, unless it is down or on its way there, and do not wait. A refusal is logged, not raised."""
    try:
        machine = _Machine(settings, conn_id)
        if machine.status() not in {"TERMINATED", "SUSPENDED", "STOPPING", "SUSPENDING"}:
            machine.ask("stop")
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
        self, wanted: Collection[str], ways: Mapping[str, str], timeout_s: float
    ) -> tuple[dict[str, Any], bool]:
        """The instance as it is in one of the statuses `wanted`, and whether it had to be asked.

        ways : a status and the method that leads out of it; in any other the instance is on its way and waited for
        """
        operation: dict[str, Any] | None = None
        asked = False
        for _ in _turns(timeout_s):
            if operation:
                operation = self._call("GET", f"{self._zone}/operations/{operation['name']}")
                if operation["status"] != "DONE":
                    continue
                self._check(operation)
                operation = None
            instance = self._call("GET", self._instance)
            if instance["status"] in wanted:
                return instance, asked
            if way := ways.get(instance["status"]):
                operation, asked = self.ask(way), True
        raise WorkerError(
            f"{self.name} is not {' or '.join(sorted(wanted))} after {timeout_s:.0f} s; its page in the console says why, and "
            "worker.gce.start_timeout_s how long a start may take"
        )

    def ask(self, way: str) -> dict[str, Any]:
        """Ask for ``start``, ``resume`` or ``stop`` and return the operation that does it."""
        log.info("%s is asked to %s", self.name, way)
        # with an id of its own a request that is repeated because its answer was lost is not done twice
        parameters = {"requestId": str(uuid.uuid4()), **_PARAMETERS.get(way, {})}
        operation: dict[str, Any] = self._call("POST", f"{self._instance}/{way}", params=parameters)
        return operation

    def _check(self, operation: dict[str, Any]) -> None:
        errors = operation.get("error", {}).get("errors", [])
        if errors:
            said = "; ".join(f"{error['code']}: {error.get('message', '')}" for error in errors)
            raise WorkerError(
                f"{self.name} did not {operation['operationType']}: {said}. Where the zone has none left, try later, reserve "
                "one, or name a machine in another zone in worker.gce; where a quota is used up, ask Google for more"
            )

    def _call(self, method: str, path: str, **request: Any) -> Any:
        try:
            return self._rest.call(method, path, **request)
        except SettingsError as error:
            raise SettingsError(f"{self.name} cannot be used, see worker.gce: {error}") from error


def _described(settings: GceSettings, instance: Mapping[str, Any]) -> dict[str, str]:
    return {
        "instance": settings.instance,
        "zone": settings.zone,
        "machine_type": instance["machineType"].rpartition("/")[2],
    }


def _turns(seconds: float) -> Iterator[None]:
    """Turns of a loop, with pauses between them that grow from 0.1 to 5 s, until so many seconds are over."""
    deadline, pause = time.monotonic() + seconds, 0.1
    while True:
        yield
        if time.monotonic() + pause > deadline:
            return
        time.sleep(pause)
        pause = min(1.5 * pause, 5.0)
