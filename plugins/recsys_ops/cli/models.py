"""``recsys_ops models``: the model versions."""

import argparse
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from recsys_ops.cli.stores import configured_storage
from recsys_ops.cli.tables import format_number, format_rows, format_size, metric_order
from recsys_ops.errors import ModelError


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the group `models` to the command line."""
    commands = groups.add_parser("models", help="the model versions").add_subparsers(
        required=True, metavar="command"
    )
    listing = commands.add_parser(
        "list", help="the newest versions: verdict, NDCG beside the champion's, what is live"
    )
    listing.add_argument(
        "--last", type=int, default=28, metavar="N", help="the N newest (default 28)"
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=show_versions)
    show = commands.add_parser(
        "show", help="a version's inputs, metrics, every rule of its verdict, its deployments"
    )
    show.add_argument("version")
    show.add_argument("--json", action="store_true", help="print JSON, with the whole manifest")
    show.set_defaults(run=show_version)
    diff = commands.add_parser(
        "diff", help="what differs between two versions, and how much their lists share"
    )
    diff.add_argument("one")
    diff.add_argument("other")
    diff.set_defaults(run=show_difference)
    for name, run, text in (
        ("pin", pin, "keep a version from expiring"),
        ("unpin", unpin, "let a version expire like the others"),
        ("release", release, "let a blocked version go live again"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("version")
        command.set_defaults(run=run)


def show_versions(arguments: argparse.Namespace) -> None:
    """Print the newest versions, one a line."""
    from recsys_ops.models.registry import list_versions

    versions = list_versions(configured_storage(), arguments.last, datetime.now(UTC).date())
    if arguments.json:
        print(json.dumps(versions, indent=2, default=str))
    elif not versions:
        print("there is no model version yet: run recsys_retrain")
    else:
        print(
            format_rows(
                [
                    {
                        "version": version["version"],
                        "age": f"{version['age_days']} d",
                        "verdict": version["verdict"],
                        "NDCG": format_number(version["ndcg"]),
                        "champion's": format_number(version["champion_ndcg"]),
                        "size": format_size(version["bytes"]),
                        "started from": version["started_from"],
                        "is": ", ".join(version["is"]),
                    }
                    for version in versions
                ]
            )
        )


def show_version(arguments: argparse.Namespace) -> None:
    """Print what storage holds about a version."""
    from recsys_ops.models.registry import describe_version

    version = describe_version(configured_storage(), arguments.version)
    if arguments.json:
        print(json.dumps(version, indent=2, default=str))
        return
    print(f"{version['version']}: {', '.join([version['state'], *version['is']])}")
    if version["manifest"]:
        print(_describe_manifest(version["manifest"]))
    if version["metrics"]:
        print(f"\n{_describe_metrics(version['metrics'])}")
    if version["verdict"]:
        print(f"\n{_describe_verdict(version['verdict'])}")
    for deployment in version["deployments"]:
        print(f"\ndeployed by {deployment['by'] or 'a nightly run'}: {deployment['reason']}")
    if version["blocked"]:
        print(f"\nblocked: {version['blocked']}")


def _describe_manifest(manifest: Mapping[str, Any]) -> str:
    run = manifest["run"]
    size = sum(file["bytes"] for file in manifest["files"].values())
    return (
        f"learned from {manifest['window_start']} … {manifest['day']}, "
        f"history version {manifest['history_version']}: "
        f"{manifest['users']:,} users, {manifest['items']:,} items\n"
        f"champion {manifest['spec']['champion'] or 'none'}, "
        f"started from {manifest['started_from'] or 'nothing'}\n"
        f"last cold fit {manifest['fitted_cold']}, seed {manifest['seeds']['start']}, "
        f"code {manifest['code'][:12]}\n"
        f"trained on {run['device']['name']}, solver {run['device']['solver']}, "
        f"in {sum(run['seconds'].values()):.1f} s, cost {format_number(run['cost'])}, "
        f"{format_size(size)}"
    )


def _describe_metrics(metrics: Mapping[str, Any]) -> str:
    models = [
        name for name in ("challenger", "champion", "reference", "popularity") if metrics.get(name)
    ]
    rows = [
        {"metric": name, **{model: format_number(metrics[model].get(name)) for model in models}}
        for name in sorted(metrics["challenger"], key=metric_order)
    ]
    return f"{metrics['users']:,} users evaluated\n{format_rows(rows)}"


def _describe_verdict(verdict: Mapping[str, Any]) -> str:
    rules = [
        {
            "rule": rule["name"],
            "value": format_number(rule["value"]),
            "threshold": format_number(rule["threshold"]),
            "passed": "yes" if rule["passed"] else "NO",
            "sentence": rule["sentence"],
        }
        for rule in verdict["rules"]
    ]
    text = f"{verdict['summary']}\n{format_rows(rules)}"
    if forced := verdict["forced"]:
        text += f"\n\nforced by {forced['by']}: {forced['reason']}"
    return text


def show_difference(arguments: argparse.Namespace) -> None:
    """Print side by side what differs, and how much the lists have in common."""
    from recsys_ops.models.registry import compare_versions

    pair = (arguments.one, arguments.other)
    comparison = compare_versions(configured_storage(), *pair)
    metrics = {
        name: tuple(map(format_number, comparison["metrics"][name]))
        for name in sorted(comparison["metrics"], key=metric_order)
    }
    rows = [
        {"": name, pair[0]: one, pair[1]: other}
        for name, (one, other) in (comparison["made_of"] | metrics).items()
    ]
    print(format_rows(rows) if rows else "no difference in settings, data, code and packages")
    users = comparison["overlap_users"]
    shared = f"; they share {comparison['overlap']:.1%} of their items on average" if users else ""
    print(f"\n{users:,} users have a list in both{shared}")


def pin(arguments: argparse.Namespace) -> None:
    """Keep a finished version from expiring."""
    from recsys_ops.models.deployments import pin_version
    from recsys_ops.models.registry import check_finished

    storage = configured_storage()
    check_finished(storage, arguments.version)
    pin_version(storage, arguments.version)
    print(f"{arguments.version} never expires")


def unpin(arguments: argparse.Namespace) -> None:
    """Let a pinned version expire."""
    from recsys_ops.models.deployments import read_deployment_state, unpin_version

    storage = configured_storage()
    _check_member(arguments.version, read_deployment_state(storage)["pinned"], "pinned")
    unpin_version(storage, arguments.version)
    print(f"{arguments.version} expires like the others")


def release(arguments: argparse.Namespace) -> None:
    """Let a blocked version go live."""
    from recsys_ops.models.deployments import read_deployment_state, release_version

    storage = configured_storage()
    _check_member(arguments.version, read_deployment_state(storage)["blocked"], "blocked")
    release_version(storage, arguments.version)
    print(
        f"{arguments.version} may go live again: clear refresh_redis of its run, "
        "or trigger recsys_rollback with it"
    )


def _check_member(version: str, versions: Collection[str], state: str) -> None:
    if version not in versions:
        raise ModelError(
            f"{version} is not {state}; {state} are {', '.join(sorted(versions)) or 'none'}"
        )
