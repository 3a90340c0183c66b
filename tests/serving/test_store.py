import asyncio

import pytest
import redis
from support.redis_lists import lists_of

from recsys_ops.errors import ServingError
from recsys_ops.serving.client import RedisAddress, connect_redis_async
from recsys_ops.serving.layout import VersionLists
from recsys_ops.serving.publish import publish
from recsys_ops.serving.store import Answer, AsyncRecommendationStore, RecommendationStore
from recsys_ops.settings import ServingSettings

HOSTILE = [
    "_popular",
    "_version",
    "__popular",
    "_similar:a",
    "nul\x00nul",
    "line\r\n$5\r\nbreak",
    "Zoë 😀",
    '"],[{}',
    " ",
]
HOSTILE += ["a,b", "100%", "%2C", "%", ",", "x" * 100_000]


def test_a_user_gets_the_published_items_in_order(
    redis_client: redis.Redis, settings: ServingSettings, v1: VersionLists
) -> None:
    publish(redis_client, settings, "v1", v1)

    assert RecommendationStore(redis_client, settings).recommendations("cleo") == Answer(
        ["v1-c", "v1-a"], "personal", "v1"
    )


def test_items_and_categories_have_lists_of_their_own(
    redis_client: redis.Redis, settings: ServingSettings, v1: VersionLists
) -> None:
    publish(redis_client, settings, "v1", v1)
    store = RecommendationStore(redis_client, settings)

    assert store.similar("v1-a") == Answer(["v1-b"], "similar", "v1")
    assert store.bought_together("v1-a") == Answer(["v1-c"], "bought_together", "v1")
    assert store.popular("cups") == Answer(["v1-cup"], "category", "v1")
    assert store.trending() == Answer(["v1-new"], "trending", "v1")
    assert store.popular() == Answer(["v1-top"], "popular", "v1")
    assert store.version() == "v1"


def test_an_unknown_user_or_item_gets_the_popular_items(
    redis_client: redis.Redis, settings: ServingSettings, v2: VersionLists
) -> None:
    publish(redis_client, settings, "v2", v2)
    store = RecommendationStore(redis_client, settings)

    popular = Answer(["v2-top"], "popular", "v2")
    for unknown in [
        "ann",
        "",
        "_popular",
        "_version",
        "\ud800",
        "_similar:v1-a",
        "_bought_together:v1-a",
        "_category:cups",
    ]:
        assert store.recommendations(unknown) == popular
    assert (
        store.similar("v1-a")
        == store.bought_together("cups")
        == store.popular("v1-a")
        == store.trending()
        == popular
    )


def test_asyncio_gets_the_same_answers(
    redis_client: redis.Redis, redis_url: str, settings: ServingSettings, v1: VersionLists
) -> None:
    publish(redis_client, settings, "v1", v1)
    store = RecommendationStore(redis_client, settings)

    async def ask() -> list[Answer | str]:
        port = redis.connection.parse_url(redis_url)["port"]
        client = connect_redis_async(
            RedisAddress(host="127.0.0.1", port=port), timeout_s=5, retries=0
        )
        async_store = AsyncRecommendationStore(client, settings)
        answers = [
            await async_store.recommendations("ann"),
            await async_store.similar("v1-a"),
            await async_store.bought_together("v1-a"),
            await async_store.popular(),
            await async_store.popular("cups"),
            await async_store.trending(),
            await async_store.version(),
        ]
        await client.aclose()
        return answers

    assert asyncio.run(ask()) == [
        store.recommendations("ann"),
        store.similar("v1-a"),
        store.bought_together("v1-a"),
        store.popular(),
        store.popular("cups"),
        store.trending(),
        "v1",
    ]


def test_a_user_without_items_gets_the_popular_ones(
    redis_client: redis.Redis, settings: ServingSettings
) -> None:
    publish(redis_client, settings, "v1", lists_of({"ann": ["i"], "bob": []}, ["top"]))

    assert RecommendationStore(redis_client, settings).recommendations("bob") == Answer(
        ["top"], "popular", "v1"
    )


def test_hostile_ids_come_back_as_they_went_in(
    redis_client: redis.Redis, settings: ServingSettings
) -> None:
    own = {name: [f"{name}!", name] for name in HOSTILE}
    publish(
        redis_client,
        settings,
        "v1",
        lists_of(own, HOSTILE, similar=own, bought_together=own, categories=own, trending=HOSTILE),
    )
    store = RecommendationStore(redis_client, settings)

    for ask in (store.recommendations, store.similar, store.bought_together, store.popular):
        assert [ask(name).items for name in HOSTILE] == [*own.values()]
    assert store.recommendations("unknown").items == store.trending().items == HOSTILE


def test_whole_numbers_can_be_packed(redis_client: redis.Redis) -> None:
    packed = ServingSettings(buckets=64, encoding="int32")
    numbers = {"ann": ["7", "2147483647"], "bob": ["0"], "cleo": []}
    publish(
        redis_client,
        packed,
        "v1",
        lists_of(numbers, ["1", "2"], similar={"7": ["8"]}, categories={"cups": ["9"]}),
    )
    store = RecommendationStore(redis_client, packed)

    assert [store.recommendations(user).items for user in numbers] == [
        ["7", "2147483647"],
        ["0"],
        ["1", "2"],
    ]
    assert (store.similar("7").items, store.popular("cups").items, store.trending().items) == (
        ["8"],
        ["9"],
        ["1", "2"],
    )


def test_a_reader_follows_a_change_of_encoding_by_itself(
    redis_client: redis.Redis, settings: ServingSettings
) -> None:
    store = RecommendationStore(redis_client, settings)
    for encoding in ("text", "int32", "text"):
        changed = settings.model_copy(update={"encoding": encoding})
        publish(redis_client, changed, f"in {encoding}", lists_of({"ann": ["7", "8"]}, ["1"]))
        assert store.recommendations("ann") == Answer(["7", "8"], "personal", f"in {encoding}")


def test_an_answer_takes_one_command_on_one_key(
    redis_client: redis.Redis, settings: ServingSettings, v1: VersionLists
) -> None:
    publish(redis_client, settings, "v1", v1)
    redis_client.config_resetstat()

    RecommendationStore(redis_client, settings).recommendations("ann")

    commands = redis_client.info("commandstats")
    assert commands.pop("cmdstat_hmget")["calls"] == 1
    assert set(commands) <= {"cmdstat_info", "cmdstat_config", "cmdstat_config|resetstat"}


def test_before_the_first_publish_the_reader_says_what_to_run(
    redis_client: redis.Redis, settings: ServingSettings
) -> None:
    with pytest.raises(ServingError, match=r"nothing is published .* run recsys_retrain"):
        RecommendationStore(redis_client, settings).recommendations("ann")


def test_a_reader_with_another_number_of_buckets_fails(
    redis_client: redis.Redis, settings: ServingSettings, v1: VersionLists
) -> None:
    publish(redis_client, settings, "v1", v1)

    with pytest.raises(
        ServingError,
        match=r"published with layout text/64: read it with the publisher's serving.buckets",
    ):
        RecommendationStore(redis_client, ServingSettings(buckets=32)).recommendations("ann")


def test_an_unreachable_redis_is_named(settings: ServingSettings) -> None:
    unreachable = redis.Redis(port=1, retry=None)

    with pytest.raises(ServingError, match=r"Redis localhost:1: it cannot be reached"):
        RecommendationStore(unreachable, settings).recommendations("ann")
