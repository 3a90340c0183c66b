"""What a person wants to see of a finished demo: figures gathered from the stores, and the page made of them."""

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import redis
import sqlalchemy as sa

from recsys_ops.demo.truth import expected_step
from recsys_ops.history.table import current_version, read_events
from recsys_ops.ingest.clean_day import STEPS
from recsys_ops.models.deployments import list_deployments
from recsys_ops.serving.store import RecommendationStore
from recsys_ops.settings import load_settings
from recsys_ops.storage import paths
from recsys_ops.storage.objects import Storage

Tasks = Mapping[str, Mapping[str, Mapping[str, Any]]]


def gather(home: Path, engine: sa.Engine, redis_port: int, tasks: Tasks) -> dict[str, Any]:
    """All figures of the demo, as they will stand in ``summary.json``.

    tasks : for each run, named ``<dag> <day>``, Airflow's task instances by task id
    """
    storage = Storage(f"file://{home}/blob")
    with engine.connect() as connection:
        truth = pl.read_database(
            sa.text("SELECT line_id::text AS row_id, label, detail FROM truth.lines"), connection
        )
    ingested = [
        date.fromisoformat(run.split()[1]) for run in tasks if run.startswith("recsys_ingest")
    ]
    live = list_deployments(storage)
    return {
        "cleaning": cleaning(storage, ingested, truth),
        "history": arrived(storage, engine),
        "models": [model(storage, deployment["version"]) for deployment in live],
        "people": people(
            storage, redis.Redis(port=redis_port), date.fromisoformat(live[-1]["day"])
        ),
        "items": items(storage, redis.Redis(port=redis_port), date.fromisoformat(live[-1]["day"])),
        "seconds": {
            run: {name: _seconds(task) for name, task in found.items()}
            for run, found in tasks.items()
        },
    }


def cleaning(storage: Storage, days: list[date], truth: pl.DataFrame) -> list[dict[str, Any]]:
    """For each step, over the runs of `days`: rows in and kept, rejects by reason, and how they meet the planted truth."""
    raw = pl.concat(
        storage.read_parquet(paths.raw(day)).select(
            pl.col("row_id").cast(pl.String), run=pl.lit(day)
        )
        for day in days
    )
    planted = raw.join(
        truth.with_columns(step=expected_step(pl.col("label"), pl.col("detail"))),
        on="row_id",
        how="left",
    )
    rows = []
    for step in STEPS:
        reports = [storage.read_json(paths.report(step, day)) for day in days]
        rejected = pl.concat(
            storage.read_parquet(paths.quarantine(step, day)).select(
                pl.col("row_id").cast(pl.String), "reason", run=pl.lit(day)
            )
            for day in days
        )
        judged = rejected.join(planted, on=["row_id", "run"], how="left")
        expected, right = planted.filter(step=step).height, judged.filter(step=step).height
        rows.append(
            {
                "step": step,
                "rows_in": sum(report["rows_in"] for report in reports),
                "kept": sum(report["kept"] for report in reports),
                "rejected": rejected.height,
                "reasons": dict(rejected["reason"].value_counts(sort=True).iter_rows()),
                "planted": expected,
                "precision": right / rejected.height if rejected.height else 1.0,
                "recall": right / expected if expected else 1.0,
                "customers_rejected": judged.filter(label="human").height,
            }
        )
    return rows


def arrived(storage: Storage, engine: sa.Engine) -> dict[str, int]:
    """How many of the planted good rows, and of those that came late, are in the history; and how many other rows are."""
    good = sa.text(
        "SELECT event_id, COALESCE(product_id, sku) AS item_id, visible_on > (recorded_at AT TIME ZONE 'UTC')::date AS late "
        "FROM events JOIN truth.lines USING (line_id) WHERE label = 'human'"
    )
    with engine.connect() as connection:
        planted = pl.read_database(good, connection)
    rows = read_events(storage, date.min, date.max, version=current_version(storage))
    found = planted.join(rows, on=["event_id", "item_id"], how="semi")
    return {
        "rows": rows.height,
        "planted": planted.height,
        "found": found.height,
        "planted_late": int(planted["late"].sum()),
        "found_late": int(found["late"].sum()),
    }


def model(storage: Storage, version: str) -> dict[str, Any]:
    """A version's quality beside popularity and its champion, and the gate's verdict."""
    metrics, verdict = (
        storage.read_json(paths.model(version, name)) for name in ("metrics.json", "verdict.json")
    )
    shown = [f"{name}@{metrics['cutoffs'][-1]}" for name in ("ndcg", "map", "recall", "precision")]
    return {
        "version": version,
        "users_evaluated": metrics["users"],
        "metrics": {
            name: {key: metrics[name][key] for key in shown}
            for name in ("challenger", "champion", "popularity")
            if metrics[name] is not None
        },
        "verdict": verdict["summary"],
    }


def people(storage: Storage, client: redis.Redis, day: date) -> list[dict[str, Any]]:
    """Three customers and a stranger: what they bought and put into carts last, and what Redis answers for them now."""
    store = RecommendationStore(client, load_settings().serving)
    title = dict(storage.read_parquet(paths.catalogue(day)).select("item_id", "title").iter_rows())
    liked = read_events(storage, date.min, day, version=current_version(storage)).filter(
        pl.col("event_type").is_in(["purchase", "cart"])
    )
    busy = (
        liked.group_by("user_id")
        .agg(pl.col("item_id").n_unique())
        .filter(pl.col("item_id").is_between(6, 12))
    )
    chosen = busy.sort("user_id")["user_id"].gather_every(max(1, busy.height // 3))[:3].to_list()
    found = []
    for user in [*chosen, "a stranger"]:
        answer = store.recommendations(user)
        last = (
            liked.filter(user_id=user)
            .sort("event_time", descending=True)["item_id"]
            .unique(maintain_order=True)
        )
        found.append(
            {
                "user": user,
                "source": answer.source,
                "version": answer.version,
                "did": [title.get(item, item) for item in last],
                "gets": [title[item] for item in answer.items],
            }
        )
    return found


def items(storage: Storage, client: redis.Redis, day: date) -> list[dict[str, Any]]:
    """The lists of a popular item, of its category, and of the whole shop, as Redis answers now."""
    store = RecommendationStore(client, load_settings().serving)
    products = {
        item: rest
        for item, *rest in storage.read_parquet(paths.catalogue(day))
        .select("item_id", "title", "category")
        .rows()
    }
    item = next(
        (
            item
            for item in store.popular().items
            if store.bought_together(item).source == "bought_together"
        ),
        store.popular().items[0],
    )
    title, category = products[item]
    shown = {
        f"like {title}": store.similar(item),
        f"bought together with {title}": store.bought_together(item),
        f"popular in {category}": store.popular(category),
        "trending": store.trending(),
    }
    return [
        {
            "list": name,
            "source": answer.source,
            "version": answer.version,
            "gets": [products[item][0] for item in answer.items],
        }
        for name, answer in shown.items()
    ]


def render(figures: Mapping[str, Any]) -> str:
    """The figures as a page of Markdown that also reads well on a terminal."""
    lines = ["# The demo shop", "", "## Cleaning, all four ingests together", ""]
    lines += [
        "| step | rows in | kept | rejected | planted | precision | recall | reasons |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in figures["cleaning"]:
        reasons = ", ".join(f"{name} {count:,}" for name, count in row["reasons"].items())
        lines.append(
            f"| {row['step']} | {row['rows_in']:,} | {row['kept']:,} | {row['rejected']:,} | {row['planted']:,} "
            f"| {row['precision']:.1%} | {row['recall']:.1%} | {reasons} |"
        )
    held = figures["history"]
    lines += [
        "",
        f"History: {held['rows']:,} rows; {held['found']:,} of {held['planted']:,} planted good rows are in it,",
    ]
    lines += [
        f"{held['found_late']:,} of the {held['planted_late']:,} that reached the database a day or two late among them."
    ]
    for found in figures["models"]:
        lines += [
            "",
            f"## Model {found['version']}, on {found['users_evaluated']:,} users' next day",
            "",
        ]
        names = list(found["metrics"]["challenger"])
        lines += [f"| | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
        lines += [
            f"| {name} | {' | '.join(f'{values[key]:.4f}' for key in names)} |"
            for name, values in found["metrics"].items()
        ]
        lines += ["", f"Gate: {found['verdict']}"]
    lines += ["", "## What people get, read from Redis"]
    for person in figures["people"]:
        lines += ["", f"**{person['user']}** ({person['source']}, version {person['version']})", ""]
        lines += (
            [f"- bought or put into the cart: {', '.join(person['did'][:6])}"]
            if person["did"]
            else []
        )
        lines.append(f"- gets: {_some(person['gets'])}")
    lines += ["", f"Lists of items, version {figures['items'][0]['version']}:", ""]
    lines += [f"- {found['list']}: {_some(found['gets'])}" for found in figures["items"]]
    lines += ["", "## Seconds in Airflow", ""]
    for run, tasks in figures["seconds"].items():
        lines.append(
            f"- {run}: {', '.join(f'{name} {seconds:.1f}' for name, seconds in tasks.items())}"
        )
    return "\n".join(lines) + "\n"


def _some(titles: list[str]) -> str:
    shown, more = titles[:6], len(titles) - 6
    return f"{', '.join(shown)} and {more} more" if more > 0 else ", ".join(shown)


def _seconds(task: Mapping[str, Any]) -> float:
    """From the task's start to its end, as Airflow noted them."""
    start, end = (datetime.fromisoformat(task[name]) for name in ("start_date", "end_date"))
    return round((end - start).total_seconds(), 1)
