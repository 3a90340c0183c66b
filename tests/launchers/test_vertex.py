"""Jobs on Vertex AI, on a local server of its API with real credentials and processes."""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.azurite.weather import Weather, weather
from support.gcs_server import Gcs, gcs
from support.google_identity import connection, identity
from support.jobs import DAY
from support.vertex_server import (
    IMAGE,
    PROJECT,
    REGION,
    SLEEPER,
    Answer,
    Plan,
    VertexServer,
    vertex,
)

from recsys_ops.errors import ModelError, RecsysError, SettingsError, WorkerError
from recsys_ops.launchers.base import Job
from recsys_ops.launchers.vertex import Vertex
from recsys_ops.models.spec import JobSpec
from recsys_ops.models.version import verify_version
from recsys_ops.settings import VertexSettings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

ENDED = {"code": 3, "message": "The replica workerpool0-0 exited with a non-zero status of 1."}
SECRET = "c2VjcmV0IG9mIHRoZSBzdG9yYWdl"
JOB = Job(
    "recsys-20260310-0123456789",
    "gs://b/jobs/day=2026-03-10/spec.json",
    600,
    {"AZURE_STORAGE_KEY": SECRET},
    lambda: b"",
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[VertexServer]:
    with vertex() as server:
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", server.connection())
        yield server


@pytest.fixture
def bucket() -> Iterator[Gcs]:
    with gcs() as server:
        yield server


@pytest.fixture
def storage(bucket: Gcs) -> Storage:
    return bucket.storage()


def launcher(url: str, image: str = IMAGE, **settings: Any) -> Vertex:
    account = "trainer@shop-prod.iam.gserviceaccount.com"
    described = VertexSettings(
        project=PROJECT,
        region=REGION,
        image=image,
        service_account=account,
        endpoint=url,
        **settings,
    )
    return Vertex(described, "google_cloud_default", poll_s=0.02)


def run(launcher: Vertex, job: Job = JOB) -> list[str]:
    """Start the job and wait for its end; returns the lines that were written."""
    lines: list[str] = []
    launcher.wait(job, launcher.start(job), lines.append)
    return lines


def states(lines: list[str]) -> list[str]:
    return [line.split()[2].strip(",") for line in lines if line.startswith("Vertex AI:")]


def test_a_preempted_job_is_trained_when_it_is_started_again(
    server: VertexServer, bucket: Gcs, storage: Storage, make_job: Callable[..., JobSpec]
) -> None:  # fmt: skip
    spec = make_job(iterations=2)
    server.environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": bucket.key()}
    log = paths.job(DAY, "worker.log")
    job = dataclasses.replace(
        JOB,
        spec_url=storage.url(paths.job(DAY, "spec.json")),
        read_log=lambda: storage.get(log) if storage.exists(log) else b"",
    )
    server.plan = "preempt"
    with pytest.raises(WorkerError, match=r"took it away: .*preempted"):
        run(launcher(server.url), job)
    server.plan = "run"
    lines = run(launcher(server.url), job)
    assert states(lines) == ["queued", "pending", "running", "succeeded"]
    assert [line for line in lines if not line.startswith("Vertex AI:")] == storage.get(
        log
    ).decode().splitlines()
    assert any("phase=recommend" in line for line in lines)
    assert storage.read_json(paths.job(DAY, "result.json"))["version"] == spec.version
    verify_version(storage, spec.version)


def test_the_job_is_what_the_settings_say(server: VertexServer) -> None:
    launcher(
        server.url, machine_type="a2-highgpu-1g", accelerator_type="NVIDIA_TESLA_A100", spot=True
    ).start(JOB)
    assert json.loads(server.bodies[0]) == {
        "displayName": JOB.name,
        "labels": {"application": "recsys-ops"},
        "jobSpec": {
            "workerPoolSpecs": [
                {
                    "machineSpec": {
                        "machineType": "a2-highgpu-1g",
                        "acceleratorType": "NVIDIA_TESLA_A100",
                        "acceleratorCount": 1,
                    },
                    "replicaCount": "1",
                    "containerSpec": {
                        "imageUri": IMAGE,
                        "command": ["python3", "-m", "recsys_ops.worker"],
                        "args": [JOB.spec_url],
                    },
                }
            ],
            "scheduling": {"timeout": "600s", "strategy": "SPOT"},
            "serviceAccount": "trainer@shop-prod.iam.gserviceaccount.com",
        },
    }


def test_every_line_of_the_log_is_written_once_and_in_order(server: VertexServer) -> None:
    """Also if Vertex AI has started the worker again, which begins a new log."""
    written = iter(
        [
            b"",
            b"one\nt",
            b"one\ntwo\n",
            b"one\ntwo\n",
            "one\ntwo\nthr\u00e9".encode(),
            b"",
            b"a\n",
            b"a\nb\nc",
        ]
    )
    log = [b""]

    def read() -> bytes:
        log[0] = next(written, log[0])
        if log[0].endswith(b"c"):
            next(iter(server.processes.values())).kill()
        return log[0]

    place, lines, job = launcher(server.url, SLEEPER), [], dataclasses.replace(JOB, read_log=read)
    with pytest.raises(WorkerError, match="killed from outside"):
        place.wait(job, place.start(job), lines.append)
    assert [line for line in lines if not line.startswith("Vertex AI:")] == [
        "one",
        "two",
        "a",
        "b",
        "c",
    ]


FAILURES = [
    (
        8,
        "Resources are insufficient in region: europe-west4. Please try a different region.",
        WorkerError,
        "no machine",
    ),
    (13, "Internal error occurred for the current attempt.", WorkerError, "no machine"),
    (9, "The Spot VM was preempted.", WorkerError, "took it away"),
    (
        3,
        "The replica workerpool0-0 exited with a non-zero status of 137.",
        WorkerError,
        "killed from outside",
    ),
    (
        3,
        "The replica workerpool0-0 ran out-of-memory and exited with a non-zero status of "
        "9(SIGKILL).",
        ModelError,
        "larger",
    ),
    (
        3,
        "The replica workerpool0-0 exited with a non-zero status of 128. "
        "Termination reason: StartError.",
        SettingsError,
        IMAGE,
    ),
    (
        7,
        "The service account trainer does not exist.",
        SettingsError,
        "service account trainer does not exist",
    ),
]


@pytest.mark.parametrize(("code", "message", "error", "expected"), FAILURES)
def test_a_failure_says_why_and_whether_another_try_can_help(
    server: VertexServer, code: int, message: str, error: type[RecsysError], expected: str
) -> None:
    server.fails = {"code": code, "message": message}
    with pytest.raises(error, match=expected) as raised:
        run(launcher(server.url))
    assert type(raised.value) is error
    assert message in str(raised.value)
    assert (
        f"https://console.cloud.google.com/vertex-ai/locations/{REGION}/training/7000000000?project={PROJECT}"
        in str(raised.value)
    )


def test_if_the_worker_fails_by_itself_its_result_says_why(server: VertexServer) -> None:
    lines = run(launcher(server.url), dataclasses.replace(JOB, spec_url="gs://b/no-job"))
    assert states(lines)[:4] == ["queued", "pending", "running", "failed"]
    assert "exited with a non-zero status of 1" in lines[-1]


def test_an_image_that_cannot_be_pulled_is_named_in_googles_words(server: VertexServer) -> None:
    with pytest.raises(
        SettingsError, match=r"Image eu\.gcr\.io/none is not found\.; check worker.vertex"
    ):
        run(launcher(server.url, "eu.gcr.io/none"))


@pytest.mark.parametrize("plan", ["queue", "pend"])
def test_a_job_that_gets_no_machine_is_cancelled_and_says_so(
    server: VertexServer, plan: Plan
) -> None:
    server.plan, server.waited = plan, 600 + 901
    place = launcher(server.url, spot=True)
    with pytest.raises(
        WorkerError,
        match=f"no g2-standard-12 with 1 NVIDIA_L4 on spot was free in {REGION}.*spot: false",
    ):
        run(place)
    assert place.find(JOB) is None


def test_a_job_may_wait_for_its_machine_as_long_as_a_training_may_take(
    server: VertexServer,
) -> None:
    server.waited, server.fails = 600 + 800, ENDED
    run(launcher(server.url))


def test_a_job_that_vertex_does_not_end_in_time_is_cancelled(server: VertexServer) -> None:
    server.lasted, server.plan = 600 + 901, "disobey"
    place = launcher(server.url, SLEEPER)
    with pytest.raises(
        WorkerError, match=r"longer than worker.timeout_s = 600 s, and Vertex AI has not ended it"
    ):
        run(place)
    assert place.find(JOB) is None


def test_a_job_over_its_time_limit_is_not_tried_again(server: VertexServer) -> None:
    server.lasted, server.fails = 601, {"code": 4, "message": "The job's time is over."}
    with pytest.raises(ModelError, match=r"worker.timeout_s = 600 s"):
        run(launcher(server.url))


def test_cancelling_ends_the_process_and_is_safe_to_repeat(server: VertexServer) -> None:
    place = launcher(server.url, SLEEPER)
    job_id = place.start(JOB)
    assert place.find(JOB) == job_id
    while not server.processes:
        assert place.status(job_id) == "running"
    place.cancel(job_id)
    assert next(iter(server.processes.values())).poll() is not None
    assert place.find(JOB) is None
    place.cancel(job_id)
    with pytest.raises(WorkerError, match="cancelled together with its task"):
        place.wait(JOB, job_id, lambda _: None)
    with pytest.raises(ModelError, match="cancelled by somebody"):
        launcher(server.url, SLEEPER).wait(JOB, job_id, lambda _: None)
    place.cancel(job_id)
    assert place.status(job_id) == "failed"


def test_another_process_finds_the_job_and_waits_for_it(server: VertexServer) -> None:
    server.fails = ENDED
    launcher(server.url).start(dataclasses.replace(JOB, name="recsys-20260309-0123456789"))
    job_id = launcher(server.url).start(JOB)
    found_id = launcher(server.url).find(JOB)
    assert found_id == job_id
    launcher(server.url).wait(JOB, found_id, lambda _: None)
    assert launcher(server.url).find(JOB) is None
    server.jobs.clear()
    assert launcher(server.url).status(job_id) == "gone"
    with pytest.raises(WorkerError, match="deleted"):
        launcher(server.url).wait(JOB, job_id, lambda _: None)


@pytest.mark.parametrize(
    "answers", [[429, 503], ["created, 503"], ["created, cut"], [503, "created, cut"]]
)
def test_a_lost_or_refused_answer_to_create_leaves_one_job(
    server: VertexServer, answers: list[Answer]
) -> None:
    server.answers = answers
    place = launcher(server.url)
    assert place.start(JOB) == place.find(JOB)
    assert len(server.jobs) == 1


def test_a_used_up_quota_is_reported_in_googles_words(server: VertexServer) -> None:
    server.answers = [429] * 5
    with pytest.raises(WorkerError, match="custom_model_training_nvidia_l4_gpus"):
        launcher(server.url).start(JOB)


@pytest.mark.parametrize("kind", ["throttled", "busy", "cut after"])
def test_a_bad_connection_costs_only_time(
    server: VertexServer, kind: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    with weather(server.url, kind, every=3) as url:
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", connection(urlsplit(url).port or 0))
        server.fails, place = ENDED, launcher(url)
        assert place.find(JOB) is None
        run(place)
    assert len(server.jobs) == 1


def test_a_refusal_of_google_names_the_missing_right(server: VertexServer) -> None:
    server.answers = [403]
    with pytest.raises(
        SettingsError,
        match=r"aiplatform\.customJobs\.create.*google_cloud_default needs roles/aiplatform\.user",
    ):
        launcher(server.url).start(JOB)


def test_a_missing_connection_and_a_key_that_is_no_longer_valid_are_named(
    server: VertexServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {
        **identity(urlsplit(server.url).port or 0),
        "client_email": "left@shop-prod.iam.gserviceaccount.com",
    }
    left = json.dumps({"conn_type": "google_cloud_platform", "extra": {"keyfile_dict": key}})
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", left)
    with pytest.raises(
        SettingsError,
        match=r"refuses the credentials of connection google_cloud_default: .*invalid_grant",
    ):
        launcher(server.url).find(JOB)
    monkeypatch.setenv(
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT",
        '{"conn_type": "google_cloud_platform", "extra": {"keyfile_dict": "{"}}',
    )
    with pytest.raises(
        SettingsError, match="connection google_cloud_default, type google_cloud_platform"
    ):
        launcher(server.url).find(JOB)
    monkeypatch.delenv("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT")
    with pytest.raises(
        SettingsError, match="connection google_cloud_default, type google_cloud_platform"
    ):
        launcher(server.url).find(JOB)


def test_no_secret_leaves_the_machine_that_starts_the_job(
    server: VertexServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answers, server.fails = (
        [503],
        {"code": 13, "message": "Internal error occurred for the current attempt."},
    )
    with pytest.raises(WorkerError) as error:
        run(launcher(server.url))
    key = identity(0)["private_key"].splitlines()[1]
    for text in (server.bodies[0].decode(), caplog.text, str(error.value), repr(JOB)):
        assert SECRET not in text
        assert key not in text
        assert "ya29." not in text
