"""``recsys_ops <room> <command>``: looks into the stores, with Airflow's connections. Also ``python -m recsys_ops``."""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from recsys_ops.errors import DataError, ModelError, RecsysError, ServingError
from recsys_ops.settings import Settings, load_settings

if TYPE_CHECKING:
    import polars as pl

    from recsys_ops.history.table import HistoryCommit
    from recsys_ops.serving.client import Client
    from recsys_ops.storage.objects import Storage


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 1 with one line on stderr for an error of ours, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="recsys_ops", description=__doc__)
    rooms = parser.add_subparsers(required=True, metavar="room")

    history = rooms.add_parser("history", help="the table of clean events").add_subparsers(
        required=True, metavar="command"
    )
    command = history.add_parser(
        "status", help="days present, days missing, rows against the 28-day median, last version"
    )
    command.add_argument(
        "--days", type=int, default=28, metavar="N", help="show the last N days (default 28)"
    )
    command.add_argument("--json", action="store_true", help="as JSON, for machines")
    command.set_defaults(run=show_history_status)

    quarantine = rooms.add_parser("quarantine", help="rejected rows").add_subparsers(
        required=True, metavar="command"
    )
    command = quarantine.add_parser(
        "show", help="why the run of a day rejected rows; values may be personal data"
    )
    command.add_argument("day", type=date.fromisoformat, metavar="YYYY-MM-DD")
    command.add_argument("--step", metavar="STEP", help="the rows of this step one by one")
    command.add_argument("--reason", metavar="CODE", help="with --step: for this reason only")
    command.add_argument(
        "--rows",
        type=int,
        default=20,
        metavar="N",
        help="with --step: the first N rows (default 20)",
    )
    command.set_defaults(run=quarantine_show)
    command = quarantine.add_parser(
        "replay", help="clean days anew from raw, with the contract and the lists of now"
    )
    command.add_argument("first", type=date.fromisoformat, metavar="YYYY-MM-DD")
    command.add_argument(
        "last",
        type=date.fromisoformat,
        metavar="YYYY-MM-DD",
        nargs="?",
        help="default: the first day alone",
    )
    command.set_defaults(run=quarantine_replay)

    models = rooms.add_parser("models", help="the model versions").add_subparsers(
        required=True, metavar="command"
    )
    command = models.add_parser(
        "list", help="the newest versions: verdict, NDCG beside the champion's, what is live"
    )
    command.add_argument(
        "--last", type=int, default=28, metavar="N", help="the N newest (default 28)"
    )
    command.add_argument("--json", action="store_true", help="as JSON, for machines")
    command.set_defaults(run=models_list)
    command = models.add_parser(
        "show",
        help="what a version is made of, its metrics, every rule of its verdict, its deployments",
    )
    command.add_argument("version")
    command.add_argument("--json", action="store_true", help="as JSON, with all of the manifest")
    command.set_defaults(run=models_show)
    command = models.add_parser(
        "diff", help="what differs between two versions, and how much their lists have in common"
    )
    command.add_argument("one")
    command.add_argument("other")
    command.set_defaults(run=models_diff)
    for name, run, does in (
        ("pin", models_pin, "never let a version expire"),
        ("unpin", models_unpin, "let it expire like the others"),
        ("release", models_release, "let a version that was rolled back from go live again"),
    ):
        command = models.add_parser(name, help=does)
        command.add_argument("version")
        command.set_defaults(run=run)

    redis = rooms.add_parser("redis", help="what the shop reads").add_subparsers(
        required=True, metavar="command"
    )
    command = redis.add_parser(
        "status", help="the versions in Redis, live, previous and staged, and its memory"
    )
    command.add_argument("--json", action="store_true", help="as JSON, for machines")
    command.set_defaults(run=show_redis_status)
    command = redis.add_parser(
        "verify", help="compare every list that is live with the version in storage"
    )
    command.set_defaults(run=redis_verify)
    command = redis.add_parser(
        "swap-back",
        help="put the previous version live again, within a second, and block the newer one",
    )
    command.add_argument("--reason", required=True, help="why; it is recorded")
    command.set_defaults(run=redis_swap_back)
    command = redis.add_parser("show", help="what a user gets, with titles")
    command.add_argument("user")
    command.set_defaults(run=redis_show)

    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except RecsysError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def show_history_status(arguments: argparse.Namespace) -> None:
    """The history up to yesterday (UTC)."""
    from recsys_ops.history.table import history_status

    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    status = history_status(_storage(load_settings()), yesterday)
    shown = status.days.tail(arguments.days)
    if arguments.json:
        last = status.last and {
            "version": status.last.version,
            "at": str(status.last.at),
            "facts": dict(status.last.facts),
        }
        missing, days = [str(day) for day in status.missing], shown.to_dicts()
        answer = {
            "url": status.url,
            "version": status.version,
            "last_commit": last,
            "missing": missing,
            "days": days,
        }
        print(json.dumps(answer, indent=2, default=str))
        return
    rows, calendar = status.days["rows"].sum(), status.days["day"].to_list()
    print(f"{status.url}, version {status.version}: {rows:,} rows, {calendar[0]} … {calendar[-1]}")
    print(f"days missing: {', '.join(map(str, status.missing)) or 'none'}")
    print(f"days last written: {_in_words(status.last)}\n")
    print(f"{'day':<12}{'rows':>12}{'of median':>12}  written (UTC)")
    for day, count, share, written in shown.iter_rows():
        if count is None:
            print(f"{day!s:<12}{'missing':>12}")
        else:
            print(
                f"{day!s:<12}{count:>12,}{'–' if share is None else f'{share:.0%}':>12}  {written:%Y-%m-%d %H:%M}"
            )


def quarantine_show(arguments: argparse.Namespace) -> None:
    """A count and a row for every reason, or the rows themselves."""
    from recsys_ops.ingest.quarantine import quarantine_summary, rejected_rows

    storage = _storage(load_settings())
    if arguments.step is None and arguments.reason is not None:
        raise DataError("--reason needs --step")
    if arguments.step is None:
        rows = quarantine_summary(storage, arguments.day)
    else:
        rows = rejected_rows(
            storage, arguments.step, arguments.day, arguments.reason, arguments.rows
        )
    print(_table(rows) if rows.height else "nothing was rejected")


def quarantine_replay(arguments: argparse.Namespace) -> None:
    """What the steps of each run reject now, and each day's rows in the history."""
    from recsys_ops.ingest.commit import replay_days

    settings = load_settings()
    replayed = replay_days(
        _storage(settings), arguments.first, arguments.last or arguments.first, settings.cleaning
    )
    for run, found in replayed["runs"].items():
        reasons = (
            f"{reason} {count:,}"
            for step in found.values()
            for reason, count in step["reasons"].items()
        )
        print(f"the run of {run} rejects {', '.join(reasons) or 'nothing'}")
    for day, rows in replayed["rows"].items():
        print(f"{day}: {rows:,} rows in the history")


def models_list(arguments: argparse.Namespace) -> None:
    """The newest versions, a line each."""
    from recsys_ops.models.registry import list_versions

    found = list_versions(_storage(load_settings()), arguments.last, datetime.now(UTC).date())
    if arguments.json:
        print(json.dumps(found, indent=2, default=str))
    elif not found:
        print("there is no model version yet: run recsys_retrain")
    else:
        lines = [
            {
                "version": row["version"],
                "age": f"{row['age_days']} d",
                "verdict": row["verdict"],
                "NDCG": _number(row["ndcg"]),
                "champion's": _number(row["champion_ndcg"]),
                "size": _megabytes(row["bytes"]),
                "started from": row["started_from"],
                "is": ", ".join(row["is"]),
            }
            for row in found
        ]
        print(_lines(lines))


def models_show(arguments: argparse.Namespace) -> None:
    """All that is known of a version, as far as it is there."""
    from recsys_ops.models.registry import describe_version

    known = describe_version(_storage(load_settings()), arguments.version)
    if arguments.json:
        print(json.dumps(known, indent=2, default=str))
        return
    print(f"{known['version']}: {', '.join([known['state'], *known['is']])}")
    if manifest := known["manifest"]:
        run = manifest["run"]
        print(
            f"learnt from {manifest['window_start']} … {manifest['day']}, history version {manifest['history_version']}: "
            f"{manifest['users']:,} users, {manifest['items']:,} items\n"
            f"champion {manifest['spec']['champion'] or 'none'}, started from {manifest['started_from'] or 'nothing'}, "
            f"fitted cold {manifest['fitted_cold']}, seed {manifest['seeds']['start']}, code {manifest['code'][:12]}\n"
            f"made on {run['device']['name']}, solver {run['device']['solver']}, in {sum(run['seconds'].values()):.1f} s, "
            f"cost {_number(run['cost'])}, {_megabytes(sum(file['bytes'] for file in manifest['files'].values()))}"
        )
    if metrics := known["metrics"]:
        models = [
            name
            for name in ("challenger", "champion", "reference", "popularity")
            if metrics.get(name)
        ]
        names = sorted(metrics["challenger"], key=_by_cutoff)
        scores = [
            {"metric": name, **{model: _number(metrics[model].get(name)) for model in models}}
            for name in names
        ]
        print(f"\n{metrics['users']:,} users evaluated\n{_lines(scores)}")
    if verdict := known["verdict"]:
        rules = [
            {
                "rule": rule["name"],
                "value": _number(rule["value"]),
                "threshold": _number(rule["threshold"]),
                "passed": "yes" if rule["passed"] else "NO",
                "sentence": rule["sentence"],
            }
            for rule in verdict["rules"]
        ]
        print(f"\n{verdict['summary']}\n{_lines(rules)}")
        if forced := verdict["forced"]:
            print(f"\nforced by {forced['by']}: {forced['reason']}")
    for past in known["deployments"]:
        print(f"\nlive by {past['by'] or 'a night'}: {past['reason']}")
    if known["blocked"]:
        print(f"\nblocked: {known['blocked']}")


def models_diff(arguments: argparse.Namespace) -> None:
    """What differs, side by side, and what the lists have in common."""
    from recsys_ops.models.registry import compare_versions

    pair = (arguments.one, arguments.other)
    found = compare_versions(_storage(load_settings()), *pair)
    scores = {
        name: tuple(map(_number, found["metrics"][name]))
        for name in sorted(found["metrics"], key=_by_cutoff)
    }
    pairs = found["made_of"] | scores
    print(
        _lines([{"": name, pair[0]: one, pair[1]: other} for name, (one, other) in pairs.items()])
        if pairs
        else "made alike"
    )
    shared = (
        f", who share {found['overlap']:.1%} of their items on average"
        if found["overlap_users"]
        else ""
    )
    print(f"\n{found['overlap_users']:,} users have a list in both{shared}")


def models_pin(arguments: argparse.Namespace) -> None:
    """A version that is there stays."""
    from recsys_ops.models.deployments import pin_version
    from recsys_ops.models.registry import check_finished

    storage = _storage(load_settings())
    check_finished(storage, arguments.version)
    pin_version(storage, arguments.version)
    print(f"{arguments.version} never expires")


def models_unpin(arguments: argparse.Namespace) -> None:
    """A pinned version may expire."""
    from recsys_ops.models.deployments import read_deployment_state, unpin_version

    storage = _storage(load_settings())
    _check_among(read_deployment_state(storage)["pinned"], arguments.version, "pinned")
    unpin_version(storage, arguments.version)
    print(f"{arguments.version} expires like the others")


def models_release(arguments: argparse.Namespace) -> None:
    """A blocked version may go live."""
    from recsys_ops.models.deployments import read_deployment_state, release_version

    storage = _storage(load_settings())
    _check_among(read_deployment_state(storage)["blocked"], arguments.version, "blocked")
    release_version(storage, arguments.version)
    print(
        f"{arguments.version} may go live again: clear refresh_redis of its run, or trigger recsys_rollback with it"
    )


def show_redis_status(arguments: argparse.Namespace) -> None:
    """What Redis holds beside what storage says is live."""
    from recsys_ops.models.deployments import list_deployments
    from recsys_ops.serving.status import redis_status

    settings = load_settings()
    noted = list_deployments(_storage(settings))
    found = {
        **redis_status(_redis(settings), settings.serving),
        "noted_as_live": noted[-1] if noted else None,
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, versions in found["versions"].items():
        print(
            f"{name:<10}{', '.join(f'{version} in {count:,} buckets' for version, count in versions.items())}"
        )
    last = found["noted_as_live"]
    print(
        f"noted     {last['version'] if last else 'nothing'} in {_storage(settings).url('models/live.json')}"
    )
    print(f"fields    {found['fields']:,} in the live buckets\n")
    servers = [
        {
            "server": server["server"],
            "buckets": f"{server['buckets']:,}",
            "memory": _megabytes(server["used_memory"]),
            "of": _megabytes(server["maxmemory"] or None),
            "policy": server["maxmemory_policy"],
        }
        for server in found["servers"]
    ]
    print(_lines(servers))


def redis_verify(arguments: argparse.Namespace) -> None:
    """Every bucket that is live holds what the version in storage says."""
    from recsys_ops.models.version import load_manifest
    from recsys_ops.serving.layout import encode, live_key
    from recsys_ops.serving.publish import live_version, verify_buckets
    from recsys_ops.serving.rollback import read_lists

    settings = load_settings()
    storage, client = _storage(settings), _redis(settings)
    version = live_version(client, settings.serving)
    if version is None:
        raise ServingError(f"nothing is live under {settings.serving.prefix}: run recsys_retrain")
    content = encode(
        settings.serving, version, read_lists(storage, load_manifest(storage, version))
    )
    verify_buckets(client, settings.serving, content, live_key)
    print(
        f"{version}: {len(content.fields):,} lists in {settings.serving.buckets:,} buckets are as in storage"
    )


def redis_swap_back(arguments: argparse.Namespace) -> None:
    """The previous version goes live at once; it was verified when it was published."""
    from recsys_ops.serving.publish import previous_version
    from recsys_ops.serving.rollback import roll_back

    settings = load_settings()
    client = _redis(settings)
    version = previous_version(client, settings.serving)
    if version is None:
        raise ServingError(
            "Redis has no previous version in every bucket: trigger recsys_rollback, which publishes one anew"
        )
    done = roll_back(
        _storage(settings), client, settings.serving, version, arguments.reason, getpass.getuser()
    )
    print(
        f"{version} is live; blocked until they are released: {', '.join(done['rolled_back_from']) or 'none'}"
    )


def redis_show(arguments: argparse.Namespace) -> None:
    """The user's list, with what the catalogue of the version's day says of each item."""
    import polars as pl

    from recsys_ops.models.registry import version_day
    from recsys_ops.serving.store import RecommendationStore
    from recsys_ops.storage import paths

    settings = load_settings()
    answer = RecommendationStore(_redis(settings), settings.serving).recommendations(arguments.user)
    print(f"{_printable(arguments.user)}: {answer.source}, version {answer.version}")
    items = pl.DataFrame({"item_id": answer.items})
    storage, catalogue = _storage(settings), paths.catalogue(version_day(answer.version))
    if storage.exists(catalogue):
        columns = ["item_id", "title", "category", "price", "stock"]
        items = items.join(
            storage.read_parquet(catalogue).select(columns),
            on="item_id",
            how="left",
            maintain_order="left",
        )
    print(_table(items))


def _check_among(versions: Collection[str], version: str, what: str) -> None:
    if version not in versions:
        raise ModelError(
            f"{version} is not {what}; {what} are {', '.join(sorted(versions)) or 'none'}"
        )


def _lines(rows: Sequence[Mapping[str, object]]) -> str:
    """As columns of text, from rows with the same keys."""
    import polars as pl

    return _table(
        pl.DataFrame(
            [
                {name: "–" if value is None else str(value) for name, value in row.items()}
                for row in rows
            ]
        )
    )


def _by_cutoff(metric: str) -> tuple[int, str]:
    """So that ndcg@3 comes before ndcg@20."""
    name, _, cutoff = metric.partition("@")
    return int(cutoff), name


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:,.1f} MB"


def _table(rows: "pl.DataFrame") -> str:
    """As columns of text, the last one cut where a terminal ends."""
    texts = [rows.columns, *([_printable(value) for value in row] for row in rows.iter_rows())]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip()[:200] for row in texts)


def _printable(value: object) -> str:
    """What a visitor wrote may hold a terminal's commands."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else ascii(text)


def _in_words(commit: "HistoryCommit | None") -> str:
    if commit is None:
        return "not among the latest commits"
    facts = "".join(f", {name} {fact}" for name, fact in commit.facts.items())
    return f"version {commit.version} at {commit.at:%Y-%m-%d %H:%M} UTC{facts}"


def _redis(settings: Settings) -> "Client":
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from recsys_ops.connections import open_redis

    return open_redis(settings)


def _storage(settings: Settings) -> "Storage":
    """Storage behind Airflow's connection, which may lie in Airflow's own database."""
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from recsys_ops.connections import open_storage

    return open_storage(settings)
