import polars as pl
import pytest
import redis

from recsys_ops.errors import ServingError
from recsys_ops.serving.publish import publish
from recsys_ops.serving.store import Recommendations, RecommendationStore
from recsys_ops.settings import ServingSettings

HOSTILE = ["", "_popular", "_version", "__popular", "nul\x00nul", "line\r\n$5\r\nbreak", "Zoë 😀", '"],[{}', " ", "x" * 100_000]


def test_a_user_gets_the_published_items_in_order(
    redis_client: redis.Redis, settings: ServingSettings, recommendations: pl.DataFrame
) -> None:
    publish(redis_client, settings, "v1", recommendations, ["v1-top"])

    assert RecommendationStore(redis_client, settings).get("cleo") == Recommendations(["v1-c", "v1-a"], "personal", "v1")


def test_a_stranger_gets_the_popular_items(
    redis_client: redis.Redis, settings: ServingSettings, recommendations: pl.DataFrame
) -> None:
    publish(redis_client, settings, "v1", recommendations, ["v1-top", "v1-next"])
    store = RecommendationStore(redis_client, settings)

    for stranger in ["dave", "", "_popular", "_version", "\ud800"]:
        assert store.get(stranger) == Recommendations(["v1-top", "v1-next"], "popular", "v1")


def test_a_user_without_items_gets_the_popular_ones(redis_client: redis.Redis, settings: ServingSettings) -> None:
    lists = pl.DataFrame({"user_id": ["ann", "bob"], "items": [["i"], []]})
    publish(redis_client, settings, "v1", lists, ["top"])

    assert RecommendationStore(redis_client, settings).get("bob") == Recommendations(["top"], "popular", "v1")


def test_hostile_user_and_item_ids_come_back_as_they_went_in(redis_client: redis.Redis, settings: ServingSettings) -> None:
    lists = pl.DataFrame({"user_id": HOSTILE, "items": [[f"{user}!", user] for user in HOSTILE]})
    publish(redis_client, settings, "v1", lists, HOSTILE)
    store = RecommendationStore(redis_client, settings)

    assert [store.get(user).items for user in HOSTILE] == [[f"{user}!", user] for user in HOSTILE]
    assert store.get("stranger").items == HOSTILE[: settings.top_n]


def test_an_answer_takes_one_command_on_one_key(
    redis_client: redis.Redis, settings: ServingSettings, recommendations: pl.DataFrame
) -> None:
    publish(redis_client, settings, "v1", recommendations, ["v1-top"])
    redis_client.config_resetstat()

    RecommendationStore(redis_client, settings).get("ann")

    commands = redis_client.info("commandstats")
    assert commands.pop("cmdstat_hmget")["calls"] == 1
    assert set(commands) <= {"cmdstat_info", "cmdstat_config", "cmdstat_config|resetstat"}


def test_before_the_first_publish_the_reader_says_what_to_run(redis_client: redis.Redis, settings: ServingSettings) -> None:
    with pytest.raises(ServingError, match=r"nothing is published .* run recsys_retrain"):
        RecommendationStore(redis_client, settings).get("ann")


def test_an_unreachable_redis_is_named(settings: ServingSettings) -> None:
    away = redis.Redis(port=1, retry=None)

    with pytest.raises(ServingError, match=r"Redis localhost:1: it cannot be reached"):
        RecommendationStore(away, settings).get("ann")
