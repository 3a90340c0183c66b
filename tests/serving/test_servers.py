"""Publishing and reading: a cluster, Sentinel, TLS, and users with few rights."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from support.redis_lists import lists_of, redis_7

from recsys_ops.demo import services
from recsys_ops.errors import ServingError, SettingsError
from recsys_ops.serving.client import (
    RedisClient,
    address_from_environment,
    connect_redis,
    connect_redis_async,
    parse_address,
)
from recsys_ops.serving.layout import VersionLists, encode_version, live_key, lock_key, next_key
from recsys_ops.serving.nodes import find_nodes
from recsys_ops.serving.publish import (
    live_version,
    previous_version,
    publish,
    stage_version,
    swap_back,
    verify_buckets,
)
from recsys_ops.serving.store import AsyncRecommendationStore, RecommendationStore
from recsys_ops.settings import ServingSettings

SLOTS = 16_384


def wait_until(condition: Callable[[], Any], failure: str) -> None:
    for _ in range(300):
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{failure} in 15 seconds")


@pytest.fixture(scope="module")
def cluster_ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    """Three nodes, each with a third of the slots."""
    with ExitStack() as stack:
        ports = []
        for number in range(3):
            folder = tmp_path_factory.mktemp(f"node{number}")
            options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
            # the port of the cluster bus is 10,000 higher
            port = next(port for port in iter(services.free_port, None) if port < 55_000)
            ports.append(
                stack.enter_context(
                    services.redis_server(folder, port, program=redis_7(), options=options)
                )
            )
        nodes = [redis.Redis(port=port) for port in ports]
        for number, node in enumerate(nodes):
            node.execute_command(
                "CLUSTER", "ADDSLOTSRANGE", number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            )
            node.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0])
        for node in nodes:
            wait_until(
                lambda node=node: node.cluster("INFO")["cluster_state"] == "ok",
                "the cluster is not up",
            )
        yield ports


@pytest.fixture
def cluster(cluster_ports: list[int]) -> RedisClient:
    for port in cluster_ports:
        redis.Redis(port=port).flushall()
    return connect_redis(
        parse_address(
            "shop", {"host": "127.0.0.1", "port": cluster_ports[0], "extra": {"cluster": True}}
        )
    )


def test_a_cluster_serves_all_nodes_buckets(
    cluster: RedisClient, cluster_ports: list[int], v1: VersionLists, v2: VersionLists
) -> None:
    settings = ServingSettings(buckets=64)
    many = {f"u{number}": [f"i{number}"] for number in range(500)}
    published = publish(cluster, settings, "v1", lists_of(many, ["top"], similar=many))

    assert sorted(
        bucket for node in find_nodes(cluster, settings) for bucket in node.buckets
    ) == list(range(64))
    assert all(redis.Redis(port=port).dbsize() > 10 for port in cluster_ports)
    assert (published.users, published.lists, live_version(find_nodes(cluster, settings))) == (
        500,
        1000,
        "v1",
    )
    store = RecommendationStore(cluster, settings)
    assert [store.recommendations(user).items for user in many] == [*many.values()]
    assert store.trending().items == store.popular().items == ["top"]
    other_node = parse_address(
        "shop", {"host": "127.0.0.1", "port": cluster_ports[1], "extra": '{"cluster": true}'}
    )

    async def similar(item: str) -> list[str]:
        client = connect_redis_async(other_node, timeout_s=5, retries=0)
        answer = await AsyncRecommendationStore(client, settings).similar(item)
        await client.aclose()
        return answer.items

    assert asyncio.run(similar("u7")) == ["i7"]

    publish(cluster, settings, "v2", v2)
    assert store.recommendations("u7").items == ["v2-top"]
    assert previous_version(find_nodes(cluster, settings)) == "v1"
    swap_back(find_nodes(cluster, settings), "v1")
    swap_back(find_nodes(cluster, settings), "v1")
    assert store.recommendations("u7").items == ["i7"]


def test_a_cluster_half_swapped_is_finished_by_publishing_again(
    cluster: RedisClient, v1: VersionLists, v2: VersionLists
) -> None:
    settings = ServingSettings(buckets=64)
    publish(cluster, settings, "v1", v1)
    stage_version(find_nodes(cluster, settings), encode_version(settings, "v2", v2))
    for bucket in range(20):
        cluster.rename(live_key(settings, bucket), f"{live_key(settings, bucket)}:previous")
        cluster.rename(next_key(settings, bucket), live_key(settings, bucket))
    with pytest.raises(ServingError, match="half swapped"):
        live_version(find_nodes(cluster, settings))

    publish(cluster, settings, "v2", v2)

    assert live_version(find_nodes(cluster, settings)) == "v2"
    verify_buckets(find_nodes(cluster, settings), encode_version(settings, "v2", v2), live_key)


def test_on_a_cluster_a_publisher_that_lost_the_lock_does_not_swap(
    cluster: RedisClient, v1: VersionLists, v2: VersionLists
) -> None:
    settings = ServingSettings(buckets=64)
    publish(cluster, settings, "v1", v1)

    @contextmanager
    def slow(live: Collection[str | None]) -> Iterator[None]:
        cluster.delete(lock_key(settings))
        yield

    with pytest.raises(ServingError, match=r"recsys:lock was lost before the swap was complete"):
        publish(cluster, settings, "v2", v2, slow)

    assert live_version(find_nodes(cluster, settings)) == "v1"
    publish(cluster, settings, "v2", v2)
    assert live_version(find_nodes(cluster, settings)) == "v2"
    assert not cluster.exists(lock_key(settings))


def test_a_cluster_that_cannot_be_reached_is_named() -> None:
    unreachable = parse_address(
        "shop", {"host": "127.0.0.1", "port": 1, "extra": {"cluster": True}}
    )

    with pytest.raises(
        ServingError, match=r"the cluster at 127.0.0.1:1 failed: it cannot be reached in time"
    ):
        connect_redis(unreachable, retries=0)

    async def ask() -> None:
        client = connect_redis_async(unreachable, timeout_s=1, retries=0)
        await AsyncRecommendationStore(client, ServingSettings()).version()

    with pytest.raises(ServingError, match="it cannot be reached in time"):
        asyncio.run(ask())


def test_behind_sentinel_the_new_primary_is_used_after_a_failover(
    tmp_path: Path, v1: VersionLists, v2: VersionLists
) -> None:
    settings, program = ServingSettings(buckets=64), redis_7()
    with ExitStack() as stack:
        primary = stack.enter_context(services.redis_server(tmp_path / "one", program=program))
        copy = ["--replicaof", f"127.0.0.1 {primary}", "--repl-diskless-sync-delay", "0"]
        replica = stack.enter_context(
            services.redis_server(tmp_path / "two", program=program, options=copy)
        )
        configuration = tmp_path / "sentinel.conf"
        configuration.write_text(
            f"sentinel monitor shop 127.0.0.1 {primary} 1\n"
            "sentinel down-after-milliseconds shop 500\n"
            "sentinel failover-timeout shop 3000\n"
        )
        port = services.free_port()
        watch = [
            program,
            str(configuration),
            "--sentinel",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
        ]
        sentinel = subprocess.Popen(watch, stdout=subprocess.DEVNULL)
        stack.callback(sentinel.wait)
        stack.callback(sentinel.terminate)
        watcher = redis.Redis(port=port)
        wait_until(
            lambda: watcher.sentinel_master("shop")["num-slaves"] == 1,
            "Sentinel does not see the replica",
        )
        wait_until(
            lambda: redis.Redis(port=replica).info("replication")["master_link_status"] == "up",
            "no replication",
        )

        client = connect_redis(
            parse_address("shop", {"host": "shop", "extra": {"sentinels": [f"127.0.0.1:{port}"]}}),
            timeout_s=5,
        )
        store = RecommendationStore(client, settings)
        publish(client, settings, "v1", v1)
        assert store.recommendations("ann").items == ["v1-a", "v1-b"]
        wait_until(
            lambda: live_version(find_nodes(redis.Redis(port=replica), settings)) == "v1",
            "the replica does not follow",
        )

        redis.Redis(port=primary).shutdown(nosave=True)
        wait_until(lambda: watcher.sentinel_master("shop")["port"] == replica, "no failover")
        wait_until(
            lambda: redis.Redis(port=replica).info("replication")["role"] == "master",
            "no promotion",
        )
        assert store.recommendations("ann").items == ["v1-a", "v1-b"]
        publish(client, settings, "v2", v2)
        assert store.recommendations("dave").items == ["v2-d"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, and one of an unknown authority."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "other"):
        words = (
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
            f"-keyout {name}.key -out {name}.crt"
        )
        subprocess.run(
            ["openssl", *words.split(), "-addext", "subjectAltName=DNS:localhost"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return folder


# what docs/reference/redis-layout.md says
RULES = {
    "publisher": "~recsys:* +get +set +hset +hget +hmget +hlen +exists +unlink +rename +eval +info "
    "+ping",
    "shop": "~recsys:* +hmget +ping",
}


def test_over_tls_users_can_do_what_their_rights_say(
    tmp_path: Path, certificates: Path, v1: VersionLists, v2: VersionLists
) -> None:
    settings, port = ServingSettings(buckets=64), services.free_port()
    tls = [
        *(
            "--tls-port",
            str(port),
            "--tls-cert-file",
            f"{certificates}/server.crt",
            "--tls-key-file",
            f"{certificates}/server.key",
        ),
        *("--tls-ca-cert-file", f"{certificates}/server.crt", "--tls-auth-clients", "no"),
    ]
    with services.redis_server(tmp_path, program=redis_7(), options=tls) as plain:
        for name, rules in RULES.items():
            redis.Redis(port=plain).execute_command(
                "ACL", "SETUSER", name, "on", f">{name}'s", "resetkeys", "-@all", *rules.split()
            )

        def client(login: str, authority: str = "server", **other: Any) -> RedisClient:
            extra = {"ssl": True, "ssl_ca_certs": f"{certificates}/{authority}.crt"}
            fields = {
                "host": "localhost",
                "port": port,
                "login": login,
                "password": f"{login}'s",
                "extra": extra,
            }
            return connect_redis(parse_address("shop", fields | other), retries=0)

        publish(client("publisher"), settings, "v1", v1)
        publish(client("publisher"), settings, "v2", v2)
        swap_back(find_nodes(client("publisher"), settings), "v1")
        assert RecommendationStore(client("shop"), settings).recommendations("ann").items == [
            "v1-a",
            "v1-b",
        ]
        with pytest.raises(
            ServingError, match="refuses the login; check user, password and rights"
        ):
            publish(client("shop"), settings, "v3", v2)
        with pytest.raises(ServingError, match="refuses the login"):
            RecommendationStore(client("shop", password="wrong"), settings).version()
        with pytest.raises(ServingError, match="certificate verify failed"):
            RecommendationStore(client("shop", authority="other"), settings).version()
        assert RecommendationStore(client("shop"), settings).version() == "v1"


def test_an_unusable_connection_is_explained_without_its_secrets() -> None:
    with pytest.raises(
        SettingsError,
        match=r"connection shop cannot be used: extra\.sll: .*; extra may have db, ssl",
    ) as error:
        parse_address("shop", {"host": "h", "password": "secret", "extra": {"sll": "secret"}})
    assert "secret" not in str(error.value)
    with pytest.raises(SettingsError, match="a cluster has neither sentinels nor a db"):
        parse_address("shop", {"extra": {"cluster": True, "db": 1}})
    for extra in ("not json", "[1]", [], "secret"):
        with pytest.raises(
            SettingsError, match="connection shop cannot be used: its extra is no JSON object"
        ):
            parse_address("shop", {"extra": extra})
    for sentinel in ("one", "one:abc", ":1"):
        with pytest.raises(SettingsError, match=r"extra\.sentinels\.0"):
            parse_address("shop", {"extra": {"sentinels": [sentinel]}})
    assert "secret" not in repr(parse_address("shop", {"password": "secret"}))


def test_without_airflow_the_connection_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_RECSYS_REDIS", raising=False)
    with pytest.raises(SettingsError, match="AIRFLOW_CONN_RECSYS_REDIS is not set"):
        address_from_environment("recsys_redis")
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_REDIS", "redis://:secret@host")
    with pytest.raises(SettingsError, match="is no JSON object") as error:
        address_from_environment("recsys_redis")
    assert "secret" not in str(error.value)
    monkeypatch.setenv(
        "AIRFLOW_CONN_RECSYS_REDIS",
        json.dumps({"conn_type": "redis", "host": "h", "port": 7, "extra": {"db": 2}}),
    )
    address = address_from_environment("recsys_redis")
    assert (address.host, address.port, address.extra.db) == ("h", 7, 2)
