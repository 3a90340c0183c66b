"""``recsys_ops redis``: what the shop reads."""

import argparse
import getpass
import json

from recsys_ops.cli.stores import configured_redis, configured_storage
from recsys_ops.cli.tables import format_frame, format_rows, format_size, printable
from recsys_ops.errors import ServingError
from recsys_ops.settings import load_settings


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group `redis` to the command line."""
    commands = groups.add_parser("redis", help="what the shop reads").add_subparsers(
        required=True, metavar="command"
    )
    status = commands.add_parser(
        "status", help="the versions live, previous and staged, and the memory"
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=show_redis_status)
    verify = commands.add_parser(
        "verify", help="compare every live list with the version in storage"
    )
    verify.set_defaults(run=verify_live_lists)
    back = commands.add_parser(
        "swap-back",
        help="put the previous version live again within a second, and block the newer one",
    )
    back.add_argument("--reason", required=True, help="why; it is recorded")
    back.set_defaults(run=swap_back_to_previous)
    show = commands.add_parser("show", help="a user's list, with titles")
    show.add_argument("user")
    show.set_defaults(run=show_user_list)


def show_redis_status(arguments: argparse.Namespace) -> None:
    """Print what Redis holds, and which version is live according to storage."""
    from recsys_ops.models.deployments import read_deployment_state
    from recsys_ops.serving.status import describe_difference, redis_status
    from recsys_ops.storage import paths

    storage = configured_storage()
    recorded = read_deployment_state(storage)
    status = redis_status(configured_redis(), load_settings().serving)
    status |= {
        "last_deployment": next(reversed(recorded["deployments"]), None),
        "difference": describe_difference(status["versions"]["live"], recorded),
    }
    if arguments.json:
        print(json.dumps(status, indent=2))
        return
    for name, versions in status["versions"].items():
        counts = ", ".join(f"{version} in {count:,} buckets" for version, count in versions.items())
        print(f"{name:<10}{counts}")
    deployment = status["last_deployment"]
    version = deployment["version"] if deployment else "nothing"
    print(f"recorded  {version} in {storage.url(paths.LIVE)}")
    if status["difference"]:
        print(f"DIFFERENT {status['difference']}")
    print(f"fields    {status['fields']:,} in the live buckets\n")
    print(
        format_rows(
            [
                {
                    "server": server["server"],
                    "buckets": f"{server['buckets']:,}",
                    "memory": format_size(server["used_memory"]),
                    "of": format_size(server["maxmemory"] or None),
                    "policy": server["maxmemory_policy"],
                }
                for server in status["servers"]
            ]
        )
    )


def verify_live_lists(arguments: argparse.Namespace) -> None:
    """Compare every live bucket with the version in storage."""
    from recsys_ops.models.version import load_manifest
    from recsys_ops.serving.layout import encode_version, live_key
    from recsys_ops.serving.nodes import find_nodes
    from recsys_ops.serving.publish import live_version, verify_buckets
    from recsys_ops.serving.version_lists import read_version_lists

    settings = load_settings().serving
    storage, nodes = configured_storage(), find_nodes(configured_redis(), settings)
    version = live_version(nodes)
    if version is None:
        raise ServingError(f"nothing is live under {settings.prefix}: run recsys_retrain")
    lists = read_version_lists(storage, load_manifest(storage, version))
    content = encode_version(settings, version, lists)
    verify_buckets(nodes, content, live_key)
    print(
        f"{version}: {len(content.fields):,} lists in {settings.buckets:,} buckets "
        "are as in storage"
    )


def swap_back_to_previous(arguments: argparse.Namespace) -> None:
    """Put the previous version live immediately; it was verified when it was published."""
    from recsys_ops.serving.nodes import find_nodes
    from recsys_ops.serving.publish import previous_version
    from recsys_ops.serving.rollback import roll_back

    settings = load_settings().serving
    client = configured_redis()
    version = previous_version(find_nodes(client, settings))
    if version is None:
        raise ServingError(
            "Redis has no previous version in every bucket: "
            "trigger recsys_rollback, which publishes one again"
        )
    rollback = roll_back(
        configured_storage(), client, settings, version, arguments.reason, getpass.getuser()
    )
    blocked = ", ".join(rollback["rolled_back_from"]) or "none"
    print(f"{version} is live; blocked until they are released: {blocked}")


def show_user_list(arguments: argparse.Namespace) -> None:
    """Print a user's list, with the catalogue of the version's day."""
    import polars as pl

    from recsys_ops.models.registry import version_day
    from recsys_ops.serving.store import RecommendationStore
    from recsys_ops.storage import paths
    from recsys_ops.storage.generations import generations

    store = RecommendationStore(configured_redis(), load_settings().serving)
    answer = store.recommendations(arguments.user)
    print(f"{printable(arguments.user)}: {answer.source}, version {answer.version}")
    items = pl.DataFrame({"item_id": answer.items})
    storage = configured_storage()
    catalogues = generations(storage, paths.CATALOGUE, version_day(answer.version))
    if catalogues:
        columns = ["item_id", "title", "category", "price", "stock"]
        items = items.join(
            storage.read_parquet(catalogues[-1].path).select(columns),
            on="item_id",
            how="left",
            maintain_order="left",
        )
    print(format_frame(items))
