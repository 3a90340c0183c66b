"""What the lookup service answers: lists, details, baskets, caching, health."""

from urllib.parse import quote

import httpx
import pytest
import redis
from support.lookup_service import V2
from support.redis_lists import lists_of

from recsys_ops.serving.publish import publish
from recsys_ops.settings import Settings

HOSTILE_IDS = [
    "/", "//", "a/b", "../../etc/passwd", "a/recommendations", "/recommendations", "%2F", "%",
    "%00", "%zz", "?", "?n=1", "#", "a#b", "&n=3", "\x00", "nul\x00nul", "\r\n",
    "a\r\nSet-Cookie: x=1", "line\nbreak", "\n", "trailing\n", "\t", " ", "  a", "+", "a b", ";",
    ":", "*", "_popular", "_version", "_layout", "_trending", "__popular", "_", "_similar:cup-1",
    "_bought_together:cup-1", "_category:cups", "recsys:{0}", "recsys:{0}:next", "{0}",
    "$5\r\nhello", "*1\r\n$8\r\nFLUSHALL\r\n", "\r\nFLUSHALL\r\n", "'; DROP TABLE users; --", "\"",
    "'", "\\", "`id`", "$(id)", "${jndi:ldap://x}", "{{7*7}}", "<script>alert(1)</script>", "%s%n",
    "{}", "[]", "{\"$gt\": \"\"}", "null", "None", "undefined", "NaN", "true", "-1", "0", "00",
    "1e309", "9007199254740993", "٣", "é", "e\u0301", "Zoë 😀", "日本語", "\u202eabc", "\u200b",
    "\ufeff", "\uffff", "\U0010ffff", "ß", "İ", "\x7f", "\x1b[31m", "\x85", "\u2028", "a" * 255,
    "a" * 4096, "é" * 4096, "/" * 1000, "%" * 1000, "cup-1,cup-2", "ann ", "Ann", "ann\x00", "ann/",
    "/ann", "users", "health", "http://example.com/", "//example.com", "@", "~", "=", "a=b", "..",
    ".",
]  # fmt: skip


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


def test_details_come_from_the_catalogue_and_are_null_elsewhere(http: httpx.Client) -> None:
    answer = http.get("/users/ann/recommendations?details=true&n=2")

    unknown = {"title": None, "category": None, "price": None}
    assert answer.json()["items"] == [
        {"id": "cup-1", "title": "A cup", "category": "cups", "price": 3.5},
        {"id": "pan-2", **unknown},
    ]
    assert answer.headers["etag"] == '"v1"'


def test_health_can_be_asked_with_head(http: httpx.Client) -> None:
    head, full = http.head("/health"), http.get("/health")

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == full.headers["content-length"]


def test_a_basket_is_folded_in(http: httpx.Client) -> None:
    answer = http.post("/recommendations", json={"items": ["cup-2", "nothing"]})
    detailed = http.post(
        "/recommendations?details=true", json={"items": ["cup-2", "pan-1"], "n": 1.0}
    )

    assert answer.json() == {
        "items": ["cup-1", "cup-3", "pan-1"],
        "source": "fold_in",
        "version": "v1",
    }
    assert detailed.json()["items"] == [
        {"id": "cup-1", "title": "A cup", "category": "cups", "price": 3.5}
    ]
    assert "etag" not in answer.headers


@pytest.mark.parametrize("basket", [[], ["nothing"]])
def test_a_basket_of_unknown_items_gets_the_popular_items(
    http: httpx.Client, basket: list[str]
) -> None:
    answer = http.post("/recommendations", json={"items": basket, "n": 1})

    assert answer.json() == {"items": ["pan-1"], "source": "popular", "version": "v1"}


@pytest.mark.parametrize("tag", ['"v1"', 'W/"v1"', '"v0", "v1"', "*"])
def test_an_unchanged_list_is_answered_with_an_empty_304(
    http: httpx.Client, live_redis: redis.Redis, api_settings: Settings, tag: str
) -> None:
    def get() -> httpx.Response:
        return http.get("/users/ann/recommendations", headers={"If-None-Match": tag})

    unchanged = get()
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (
        304,
        b"",
        '"v1"',
    )
    publish(live_redis, api_settings.serving, "v2", V2)
    assert get().status_code == (304 if tag == "*" else 200)


def test_hostile_ids_get_their_own_list_or_the_popular_items(
    live_redis: redis.Redis, api_settings: Settings, http: httpx.Client
) -> None:
    assert len(set(HOSTILE_IDS)) >= 100
    lists = {name: [f"for-{number}"] for number, name in enumerate(HOSTILE_IDS[::2])}
    publish(
        live_redis,
        api_settings.serving,
        "v3",
        lists_of(lists, ["top"], similar=lists, bought_together=lists, categories=lists),
    )
    keys = live_redis.dbsize()

    for name in HOSTILE_IDS:
        quoted = quote(name, safe="").replace(".", "%2E")
        own = lists.get(name)
        for path, source in (
            (f"/users/{quoted}/recommendations", "personal"),
            (f"/items/{quoted}/similar", "similar"),
            (f"/items/{quoted}/bought-together", "bought_together"),
            (f"/popular?category={quoted}", "category"),
        ):
            answer = http.get(path)
            assert answer.status_code == 200, path
            expected = {
                "items": own or ["top"],
                "source": source if own else "popular",
                "version": "v3",
            }
            assert answer.json() == expected, path
        assert http.post("/recommendations", json={"items": [name]}).json()["items"] == ["top"]
    assert live_redis.dbsize() == keys
