"""The look-up as a shop meets it: a real server on a loopback port in front of a real Redis."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import polars as pl
import pytest
import redis
import uvicorn
from fastapi import FastAPI
from support.redis_lists import lists_of

from recsys_ops.als.factors import Factors
from recsys_ops.demo import services
from recsys_ops.errors import ModelError, SettingsError
from recsys_ops.lists.fold_in import FoldIn
from recsys_ops.serving import live_model
from recsys_ops.serving.api import create_app
from recsys_ops.serving.client import RedisAddress, connect_redis_async
from recsys_ops.serving.live_model import LiveModel, LiveModels, Product, load_live_model
from recsys_ops.serving.publish import publish
from recsys_ops.serving.store import AsyncRecommendationStore
from recsys_ops.settings import (
    ConfidenceSettings,
    ListsSettings,
    Settings,
    TrainingSettings,
    load_settings,
)
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

CUPS = ["cup-1", "cup-2", "cup-3", "pan-1", "pan-2", "pan-3"]
V1 = lists_of(
    {"ann": ["cup-1", "pan-2", "pan-1"]},
    ["pan-1", "cup-1"],
    similar={"cup-1": ["cup-2", "cup-3"]},
    bought_together={"cup-1": ["pan-1"]},
    categories={"cups": ["cup-3", "cup-1"]},
    trending=["pan-3"],
)
V2 = lists_of({"ann": ["pan-3"]}, ["pan-2"])
HOSTILE = [
    "/", "//", "a/b", "../../etc/passwd", "a/recommendations", "/recommendations", "%2F", "%", "%00", "%zz", "?", "?n=1", "#",
    "a#b", "&n=3", "\x00", "nul\x00nul", "\r\n", "a\r\nSet-Cookie: x=1", "line\nbreak", "\n", "trailing\n", "\t", " ", "  a",
    "+", "a b", ";", ":", "*", "_popular", "_version", "_layout", "_trending", "__popular", "_", "_similar:cup-1",
    "_bought_together:cup-1", "_category:cups", "recsys:{0}", "recsys:{0}:next", "{0}", "$5\r\nhello", "*1\r\n$8\r\nFLUSHALL\r\n",
    "\r\nFLUSHALL\r\n", "'; DROP TABLE users; --", '"', "'", '\\', "`id`", "$(id)", "${jndi:ldap://x}", "{{7*7}}",
    "<script>alert(1)</script>", "%s%n", "{}", "[]", '{"$gt": ""}', "null", "None", "undefined", "NaN", "true", "-1", "0",
    "00", "1e309", "9007199254740993", "٣", "é", "e\u0301", "Zoë 😀", "日本語", "\u202eabc", "\u200b", "\ufeff", "\uffff",
    "\U0010ffff", "ß", "İ", "\x7f", "\x1b[31m", "\x85", "\u2028", "a" * 255, "a" * 4096, "é" * 4096, "/" * 1000, "%" * 1000,
    "cup-1,cup-2", "ann ", "Ann", "ann\x00", "ann/", "/ann", "users", "health", "http://example.com/", "//example.com", "@",
    "~", "=", "a=b", "..", ".",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with services.redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The settings as they come, with few buckets and short lists."""
    monkeypatch.setenv("RECSYS_STORAGE__ROOT", (tmp_path / "blob").as_uri())
    monkeypatch.setenv("RECSYS_SERVING__BUCKETS", "16")
    monkeypatch.setenv("RECSYS_LISTS__TOP_N", "3")
    load_settings.cache_clear()
    yield load_settings()
    load_settings.cache_clear()


@pytest.fixture
def shop(server: int, given: Settings) -> redis.Redis:
    """A Redis in which version v1 is live."""
    client = redis.Redis(port=server)
    client.flushall()
    publish(client, given.serving, "v1", V1)
    return client


@pytest.fixture
def models(given: Settings, monkeypatch: pytest.MonkeyPatch) -> LiveModels:
    """Of any version: two kinds of things, of which people like the one or the other; pan-3 may not be recommended."""
    taste = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    items = pl.DataFrame(
        {"item_id": CUPS, "eligible": [True] * 5 + [False], "popularity": np.full(6, 40.0)}
    )
    fold_in = FoldIn(
        Factors(taste, taste * np.array([[1], [0.9], [0.8]] * 2, np.float32)),
        items,
        ConfidenceSettings(),
        TrainingSettings(),
    )
    products = {"cup-1": Product("A cup", "cups", 3.5), "cup-2": Product(None, None, None)}
    monkeypatch.setattr(
        live_model, "load_live_model", lambda _, version: LiveModel(version, fold_in, products)
    )
    return LiveModels(Storage(given.storage.root))


def made(settings: Settings, port: int, models: LiveModels, key: str | None = None) -> FastAPI:
    client = connect_redis_async(
        RedisAddress(host="127.0.0.1", port=port), timeout_s=0.5, retries=1
    )
    return create_app(settings, AsyncRecommendationStore(client, settings.serving), models, key)


def with_api(settings: Settings, **api: Any) -> Settings:
    serving = settings.serving
    return settings.model_copy(
        update={"serving": serving.model_copy(update={"api": serving.api.model_copy(update=api)})}
    )


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the app on a port of its own."""
    service = uvicorn.Server(uvicorn.Config(app, port=services.free_port(), log_level="warning"))
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        until(lambda: service.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{service.config.port}", timeout=20) as client:
            yield client
    finally:
        service.should_exit = True
        thread.join(20)


def until(done: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def http(
    shop: redis.Redis, given: Settings, server: int, models: LiveModels
) -> Iterator[httpx.Client]:
    with served(made(given, server, models)) as client:
        until(lambda: models.current)
        yield client


@pytest.mark.parametrize(
    ("path", "items", "source"),
    [
        ("/users/ann/recommendations", ["cup-1", "pan-2", "pan-1"], "personal"),
        ("/users/ann/recommendations?n=1", ["cup-1"], "personal"),
        ("/users/bob/recommendations", ["pan-1", "cup-1"], "popular"),
        ("/users//recommendations", ["pan-1", "cup-1"], "popular"),
        ("/items/cup-1/similar", ["cup-2", "cup-3"], "similar"),
        ("/items/ann/similar", ["pan-1", "cup-1"], "popular"),
        ("/items/cup-1/bought-together", ["pan-1"], "bought_together"),
        ("/popular", ["pan-1", "cup-1"], "popular"),
        ("/popular?category=cups", ["cup-3", "cup-1"], "category"),
        ("/popular?category=none", ["pan-1", "cup-1"], "popular"),
        ("/trending", ["pan-3"], "trending"),
    ],
)
def test_every_list_is_answered_with_its_source_and_version(
    http: httpx.Client, path: str, items: list[str], source: str
) -> None:
    answer = http.get(path)

    assert answer.status_code == 200
    assert answer.json() == {"items": items, "source": source, "version": "v1"}
    assert (answer.headers["etag"], answer.headers["cache-control"]) == (
        '"v1"',
        "private, no-cache",
    )


def test_details_are_those_of_the_catalogue_and_null_where_it_has_none(http: httpx.Client) -> None:
    answer = http.get("/users/ann/recommendations?details=true&n=2")

    unknown = {"title": None, "category": None, "price": None}
    assert answer.json()["items"] == [
        {"id": "cup-1", "title": "A cup", "category": "cups", "price": 3.5},
        {"id": "pan-2", **unknown},
    ]
    assert answer.headers["etag"] == '"v1"'


def test_a_basket_is_folded_in(http: httpx.Client) -> None:
    answer = http.post("/recommendations", json={"items": ["cup-2", "nothing"]})
    both = http.post("/recommendations?details=true", json={"items": ["cup-2", "pan-1"], "n": 1.0})

    assert answer.json() == {
        "items": ["cup-1", "cup-3", "pan-1"],
        "source": "fold_in",
        "version": "v1",
    }
    assert both.json()["items"] == [
        {"id": "cup-1", "title": "A cup", "category": "cups", "price": 3.5}
    ]
    assert "etag" not in answer.headers


@pytest.mark.parametrize("basket", [[], ["nothing"]])
def test_a_basket_of_nothing_known_gets_what_is_popular(
    http: httpx.Client, basket: list[str]
) -> None:
    answer = http.post("/recommendations", json={"items": basket, "n": 1})

    assert answer.json() == {"items": ["pan-1"], "source": "popular", "version": "v1"}


@pytest.mark.parametrize("tag", ['"v1"', 'W/"v1"', '"v0", "v1"', "*"])
def test_what_has_not_changed_is_not_sent_again(
    http: httpx.Client, shop: redis.Redis, given: Settings, tag: str
) -> None:
    def again() -> httpx.Response:
        return http.get("/users/ann/recommendations", headers={"If-None-Match": tag})

    unchanged = again()
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (
        304,
        b"",
        '"v1"',
    )
    publish(shop, given.serving, "v2", V2)
    assert again().status_code == (304 if tag == "*" else 200)


def test_a_new_version_is_loaded_while_the_old_one_answers(
    http: httpx.Client,
    shop: redis.Redis,
    given: Settings,
    models: LiveModels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load, release = live_model.load_live_model, threading.Event()

    def slow(storage: Storage, version: str) -> LiveModel:
        release.wait(20)
        return load(storage, version)

    monkeypatch.setattr(live_model, "load_live_model", slow)
    publish(shop, given.serving, "v2", V2)

    meanwhile = http.post("/recommendations", json={"items": ["cup-1"]})
    detailed = http.get("/users/ann/recommendations?details=true")
    assert (meanwhile.json()["source"], meanwhile.json()["version"]) == ("fold_in", "v1")
    assert detailed.json()["version"] == "v2"
    assert [item["title"] for item in detailed.json()["items"]] == [None]
    # what will change without a new version must not be kept
    assert ("etag" in detailed.headers, detailed.headers["cache-control"]) == (False, "no-store")
    assert http.get("/health").json() == {"version": "v2", "model": "v1"}

    release.set()
    until(lambda: models.current and models.current.version == "v2")
    assert http.post("/recommendations", json={"items": ["cup-1"]}).json()["version"] == "v2"


@pytest.mark.parametrize("error", [ModelError("damaged"), ValueError("nobody thought of this")])
def test_before_a_model_is_loaded_only_fold_in_has_to_wait(
    shop: redis.Redis,
    given: Settings,
    server: int,
    models: LiveModels,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    tried = []

    def fails(_: Storage, version: str) -> LiveModel:
        tried.append(version)
        raise error

    monkeypatch.setattr(live_model, "load_live_model", fails)
    with served(made(given, server, models)) as http:
        answers = [http.post("/recommendations", json={"items": ["cup-1"]}) for _ in range(5)]
        assert http.get("/users/ann/recommendations").status_code == 200
        assert http.get("/health").json() == {"version": "v1", "model": None}

    assert {answer.status_code for answer in answers} == {503}
    assert int(answers[0].headers["retry-after"]) > 0
    assert tried == ["v1"]  # once, and again after half a minute


@pytest.mark.parametrize("fails", [False, True])
def test_a_half_swapped_redis_has_each_version_loaded_once(
    models: LiveModels, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    load, tried = live_model.load_live_model, []

    def counted(storage: Storage, version: str) -> LiveModel:
        tried.append(version)
        if fails:
            raise ModelError("damaged")
        return load(storage, version)

    async def meet_both(times: int) -> None:
        for _ in range(times):
            for version in ("v1", "v2"):
                models.notice(version)
                await asyncio.sleep(0.002)

    monkeypatch.setattr(live_model, "load_live_model", counted)
    asyncio.run(meet_both(100))
    assert sorted(tried) == ["v1", "v2"]

    monkeypatch.setattr(live_model, "_RETRY_AFTER_S", 0)
    models._not_before.clear()  # half a minute later
    asyncio.run(meet_both(100))
    assert {*tried[2:]} == {"v1", "v2"}


@pytest.mark.parametrize("query", ["n=0", "n=4", "n=-1", "n=x", "n=", "details=yes"])
def test_a_wrong_query_is_refused_with_what_is_wrong(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/users/ann/recommendations?{query}")

    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"x", b"[]", b"null", b"{}", b'{"items": null}', b'{"items": [1]}', b'{"items": ["a"], "n": 0}',
        b'{"items": ["a"], "n": 4}', b'{"items": ["a"], "n": "3"}', b'{"items": ["a"], "m": 3}', b'{"items": ["\\ud800"]}',
        b'{"items": ["\xff"]}', b"[" * 100_000, json.dumps({"items": ["a"] * 1001}).encode(),
    ],
)  # fmt: skip
def test_a_wrong_body_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/recommendations", content=body)

    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


def test_a_body_that_is_too_large_is_refused(http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 65536] * 32

    for content in (b"x" * 2**21, chunks()):
        assert http.post("/recommendations", content=content).status_code == 413


def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_fault(
    http: httpx.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    with socket.create_connection(("127.0.0.1", http.base_url.port), timeout=10) as raw:
        raw.sendall(b"POST /recommendations HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.2)
    time.sleep(0.2)

    assert http.get("/health").status_code == 200
    assert not caplog.records


def test_a_load_balancer_may_ask_for_the_head_of_health(http: httpx.Client) -> None:
    head, whole = http.head("/health"), http.get("/health")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


def test_errors_have_one_shape(http: httpx.Client) -> None:
    for answer in (http.get("/nothing"), http.delete("/popular"), http.get("/popular/")):
        assert answer.status_code in {404, 405}
        assert list(answer.json()) == ["detail"]


def test_a_fault_of_its_own_is_an_answer_too(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FoldIn, "recommend", lambda *_: 1 / 0)

    answer = http.post("/recommendations", json={"items": ["cup-1"]})

    assert (answer.status_code, list(answer.json())) == (500, ["detail"])
    assert "division" not in answer.text
    # over another connection: the server closes the one of a fault
    assert httpx.get(f"{http.base_url}/popular").status_code == 200


def test_without_the_key_nothing_but_health_is_answered(
    shop: redis.Redis, given: Settings, server: int, models: LiveModels
) -> None:
    with served(made(with_api(given, require_key=True), server, models, "kéy")) as http:
        for path in ("/users/ann/recommendations", "/popular", "/version"):
            for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": "wrong"}, {b"X-API-Key": b"\xff"}):
                refused = http.get(path, headers=headers)
                assert refused.status_code == 401
                assert "X-API-Key" in refused.json()["detail"]
            assert http.get(path, headers={b"X-API-Key": "kéy".encode()}).status_code == 200
        assert http.get("/health").status_code == 200
        assert (
            http.get("/openapi.json").json()["components"]["securitySchemes"]["APIKeyHeader"][
                "name"
            ]
            == "X-API-Key"
        )


@pytest.mark.parametrize("key", [None, "", " \n", os.fsdecode(b"\xe9"), "two\nlines"])
def test_a_key_that_is_required_must_be_there_and_usable(
    given: Settings, server: int, models: LiveModels, key: str | None
) -> None:
    with pytest.raises(SettingsError, match="RECSYS_API_KEY"):
        made(with_api(given, require_key=True), server, models, key)


def test_a_line_break_after_the_key_does_not_count(
    shop: redis.Redis, given: Settings, server: int, models: LiveModels
) -> None:
    with served(made(with_api(given, require_key=True), server, models, " s3cret\r\n")) as http:
        assert http.get("/popular", headers={"X-API-Key": "s3cret"}).status_code == 200
        assert http.get("/popular", headers={"X-API-Key": "secret"}).status_code == 401


def test_who_asks_too_often_is_told_when_to_come_back(
    shop: redis.Redis, given: Settings, server: int, models: LiveModels
) -> None:
    limited = with_api(given, require_key=True, requests_per_minute=5)
    with served(made(limited, server, models, "key")) as http:
        # a minute's border may lie between two of them
        strangers = [http.get("/popular").status_code for _ in range(12)]
        answers = [http.get("/popular", headers={"X-API-Key": "key"}) for _ in range(12)]
        assert http.get("/health").status_code == 200

    assert set(strangers) == {401, 429}
    codes = [answer.status_code for answer in answers]
    assert codes[:5] == [200] * 5
    assert codes[-1] == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 120


def refused_quickly(http: httpx.Client) -> None:
    requests: list[tuple[str, str, Any]] = [
        ("GET", path, None) for path in ("/users/ann/recommendations", "/health", "/version")
    ]
    for method, path, body in [*requests, ("POST", "/recommendations", {"items": ["cup-1"]})]:
        began = time.monotonic()
        answer = http.request(method, path, json=body)
        assert (answer.status_code, time.monotonic() - began < 5) == (503, True)
        assert int(answer.headers["retry-after"]) > 0
        assert "127.0.0.1" not in answer.text


def test_a_redis_that_hangs_or_is_gone_gives_503_and_comes_back(
    given: Settings, models: LiveModels, tmp_path: Path
) -> None:
    with services.redis_server(tmp_path / "one") as port:
        client = redis.Redis(port=port)
        publish(client, given.serving, "v1", V1)
        pid = int(client.info("server")["process_id"])
        with served(made(given, port, models)) as http:
            assert http.get("/health").status_code == 200
            os.kill(pid, signal.SIGSTOP)
            try:
                refused_quickly(http)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert http.get("/users/ann/recommendations").json()["source"] == "personal"

            os.kill(pid, signal.SIGKILL)
            until(lambda: socket.socket().connect_ex(("127.0.0.1", port)))
            refused_quickly(http)
            with services.redis_server(
                tmp_path / "one", port
            ):  # its append-only file is still there
                assert http.get("/users/ann/recommendations").json()["source"] == "personal"


def at_once(port: int, clients: int) -> set[int]:
    """The statuses that so many clients get who ask at the same time; over bare sockets, as httpx would be the bottleneck."""

    async def one(number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /users/{number}/recommendations HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode()
        )
        status = (await reader.readline()).split()[1]
        writer.close()
        return int(status)

    async def ask() -> set[int]:
        return {*await asyncio.gather(*map(one, range(clients)))}

    return asyncio.run(ask())


def test_three_hundred_clients_at_once_are_all_answered(http: httpx.Client) -> None:
    assert at_once(http.base_url.port, 300) == {200}


def test_clients_of_a_redis_that_hangs_wait_no_longer_than_one(
    given: Settings, models: LiveModels, tmp_path: Path
) -> None:
    with services.redis_server(tmp_path) as port:
        client = redis.Redis(port=port)
        publish(client, given.serving, "v1", V1)
        pid = int(client.info("server")["process_id"])
        with served(made(given, port, models)) as http:
            os.kill(pid, signal.SIGSTOP)
            try:
                began = time.monotonic()
                assert at_once(http.base_url.port, 200) == {503}
                assert time.monotonic() - began < 15
            finally:
                os.kill(pid, signal.SIGCONT)


def test_an_empty_redis_gives_503(
    shop: redis.Redis, given: Settings, server: int, models: LiveModels
) -> None:
    shop.flushall()
    with served(made(given, server, models)) as http:
        refused_quickly(http)


@pytest.mark.parametrize(
    ("user", "field"), [("ann", "ann"), ("ann", "_version"), ("bob", "_popular")]
)
def test_what_cannot_be_decoded_gives_503(
    shop: redis.Redis, given: Settings, http: httpx.Client, user: str, field: str
) -> None:
    for key in shop.scan_iter(f"{given.serving.prefix}:*"):
        shop.hset(key, field, b"\xff")

    answer = http.get(f"/users/{user}/recommendations")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0


def test_without_a_redis_the_service_starts_and_says_so(
    given: Settings, models: LiveModels
) -> None:
    with served(made(given, services.free_port(), models)) as http:
        refused_quickly(http)


def test_hostile_ids_get_their_own_answer_or_the_strangers(
    shop: redis.Redis, given: Settings, http: httpx.Client
) -> None:
    assert len(set(HOSTILE)) >= 100
    users = {name: [f"for-{number}"] for number, name in enumerate(HOSTILE[::2])}
    publish(
        shop,
        given.serving,
        "v3",
        lists_of(users, ["top"], similar=users, bought_together=users, categories=users),
    )
    before = shop.dbsize()

    for name in HOSTILE:
        at = quote(name, safe="").replace(".", "%2E")
        own = users.get(name)
        for path, source in ((f"/users/{at}/recommendations", "personal"), (f"/items/{at}/similar", "similar"),
                             (f"/items/{at}/bought-together", "bought_together"), (f"/popular?category={at}", "category")):  # fmt: skip
            answer = http.get(path)
            assert answer.status_code == 200, path
            expected = {
                "items": own or ["top"],
                "source": source if own else "popular",
                "version": "v3",
            }
            assert answer.json() == expected, path
        assert http.post("/recommendations", json={"items": [name]}).json()["items"] == ["top"]
    assert shop.dbsize() == before


@pytest.mark.parametrize(
    "target",
    [
        b"/users/%00%ff%fe%80/recommendations",  # no UTF-8
        b"/users/\xff\xfe/recommendations",
        b"/users/a b/recommendations",
        b"/users/a\x00b/recommendations",
        b"/users/%/recommendations",
        b"/popular?category=%ff&n=%ff",
        b"/popular?" + b"&".join(b"n=1" for _ in range(10_000)),
        b"/users/" + b"x" * 2**20 + b"/recommendations",
        b"/users/" + b"%ff" * 2**19 + b"/recommendations",
        b"/" * 2**20,
        b"http://[::1/users/x/recommendations",
        b"*",
    ],
)
def test_a_request_that_no_library_would_send_is_answered_and_harms_nobody(
    http: httpx.Client, target: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", http.base_url.port), timeout=10) as raw:
        raw.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        status = raw.makefile("rb").readline()

    assert status.split()[1] in {b"200", b"400", b"404", b"414", b"422", b"431"}
    assert http.get("/health").status_code == 200


def test_the_api_is_as_its_schema_says(
    shop: redis.Redis, given: Settings, server: int, models: LiveModels, tmp_path: Path
) -> None:
    with served(made(with_api(given, require_key=True), server, models, "key")) as http:
        until(lambda: models.current)
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{http.base_url}/openapi.json",
            "--header",
            "X-API-Key: key",
        ]
        bounds = [
            "--checks",
            "all",
            "--max-examples",
            "40",
            "--generation-deterministic",
            "--no-color",
        ]
        done = subprocess.run(
            [*command, *bounds], capture_output=True, text=True, cwd=tmp_path, timeout=250
        )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("storage", ["folder"], indirect=True)
def test_a_model_is_read_as_its_job_wrote_it(
    make_job: Callable[..., Any], storage: Storage
) -> None:
    from recsys_ops.worker import job

    spec = make_job(
        factors=8,
        iterations=3,
        lists=ListsSettings(top_n=10, max_per_category=1, pinned_items=("item-3",)),
    )
    assert job.main(storage.url(paths.job(spec.day, "spec.json"))) == 0
    bare = load_live_model(storage, spec.version)
    category = {f"item-{n}": str(n % 10) for n in range(160)}
    catalogue = pl.DataFrame(
        {
            "item_id": [*category],
            "title": None,
            "category": [*category.values()],
            "price": float("nan"),
        }
    )
    storage.write_parquet(
        paths.catalogue(spec.day), catalogue.with_columns(pl.lit("A thing").alias("title"))
    )
    full = load_live_model(storage, spec.version)

    assert bare.products is None
    assert full.products is not None
    assert full.products["item-17"] == Product("A thing", "7", None)
    free, ruled = (
        model.fold_in.recommend(["item-1", "item-9", "item-17"], 9) or [] for model in (bare, full)
    )
    assert (free[0], ruled[0]) == ("item-3", "item-3")
    assert sum(int(item[5:]) % 8 == 1 for item in free) >= 5  # of the same taste
    assert not any(item.endswith("5") for item in free + ruled)  # not for sale
    assert len({category[item] for item in ruled}) == len(ruled) == 9


def test_the_service_runs_on_its_own(shop: redis.Redis, given: Settings, server: int) -> None:
    environment = os.environ | {
        "AIRFLOW_CONN_RECSYS_REDIS": json.dumps(
            {"conn_type": "redis", "host": "127.0.0.1", "port": server}
        ),
        "RECSYS_SERVING__API__PORT": str(port := services.free_port()),
        "RECSYS_SERVING__API__REQUIRE_KEY": "true",
    }
    command = [sys.executable, "-m", "recsys_ops.serving.api"]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "RECSYS_API_KEY" in refused.stderr

    with subprocess.Popen(
        command,
        env=environment | {"RECSYS_API_KEY": "s3cret"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 60)
            answer = httpx.get(
                f"http://127.0.0.1:{port}/users/ann/recommendations",
                headers={"X-API-Key": "s3cret"},
            )
            assert answer.json()["source"] == "personal"
        finally:
            process.terminate()
        out, err = process.communicate(timeout=30)
    assert "/users" not in out + err  # who asked for whom is nobody's business
    assert "s3cret" not in out + err
