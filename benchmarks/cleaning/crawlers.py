"""How many robots and how many people `filter_crawlers` rejects, and how fast it is."""

import argparse
import importlib.metadata
import zlib
from datetime import UTC, datetime
from pathlib import Path

import is_bot
import numpy as np
import polars as pl
from scipy.stats import binomtest

from benchmarks.harness import Report, Table, timed
from recsys_ops.cleaning import filter_crawlers
from recsys_ops.settings import CrawlerSettings

CORPORA = Path(__file__).parents[2] / "tests" / "data" / "user_agents"
PEOPLE = ("browsers", "phones", "televisions", "web_views", "apps", "traffic")
EVENTS = 1_000_000
SAMPLE = 5_000
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def corpus(name: str) -> pl.DataFrame:
    return pl.read_csv(CORPORA / f"{name}.tsv", separator="\t", quote_char=None)


def reasons_of(agents: pl.Series) -> pl.DataFrame:
    """``user_agent`` and ``reason``, null for people; each has enough views to reject a suspect."""
    events = (
        pl.LazyFrame({"user_agent": agents, "event_type": "view", "recorded_at": DAY})
        .select(pl.all().repeat_by(30).explode())
        .with_row_index("row")
    )
    rejected = (
        filter_crawlers(events, CrawlerSettings())
        .rejected.select("user_agent", "reason")
        .unique()
        .collect()
    )
    return pl.DataFrame({"user_agent": agents}).join(rejected, on="user_agent", how="left")


def quality(table: Table, name: str, agents: pl.Series) -> None:
    reasons = reasons_of(agents)["reason"]
    crawlers, suspects = (
        int((reasons == reason).sum()) for reason in ("crawler", "crawler_suspect")
    )
    interval = binomtest(crawlers + suspects, len(agents)).proportion_ci(method="wilson")
    share = (crawlers + suspects) / len(agents)
    table.add(
        name,
        len(agents),
        crawlers / len(agents),
        suspects / len(agents),
        f"{share:.1%} ({interval.low:.1%} to {interval.high:.1%})",
    )


def speed(report: Report) -> None:
    agents = pl.concat([corpus(name)["user_agent"] for name in ("traffic", "robots")])
    rows = agents.gather(np.random.default_rng(0).integers(len(agents), size=EVENTS))
    events = pl.LazyFrame(
        {"user_agent": rows, "event_type": "view", "recorded_at": DAY}
    ).with_row_index("row")
    _, cost = timed(lambda: filter_crawlers(events, CrawlerSettings()).rejected.collect())
    bots = is_bot.Bots()
    _, rival = timed(lambda: [bots.is_bot(agent) for agent in rows.head(SAMPLE)])
    seconds = rival.seconds * EVENTS / SAMPLE
    table = report.table(
        "crawlers, speed",
        {f"{EVENTS:,} events, {len(agents):,} user agents": "", "seconds": ".2f", "×": ".0f"},
    )
    table.add("`filter_crawlers`, lists compiled before", cost.seconds, 1)
    table.add(f"`is_bot` row by row, from {SAMPLE:,} rows", seconds, seconds / cost.seconds)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace, report: Report) -> None:
    packages = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in ("crawler-user-agents", "is-bot", "google-re2")
    )
    table = report.table(
        "crawlers",
        {
            "corpus": "",
            "user agents": ",",
            "`crawler`": ".1%",
            "suspect": ".1%",
            "both (95 %, Wilson)": "",
        },
        packages,
    )
    robots = corpus("robots")
    held_out = np.array([zlib.crc32(agent.encode()) % 2 == 1 for agent in robots["user_agent"]])
    chosen = robots.filter(~held_out)["user_agent"]
    quality(table, "robots, the half that chose our patterns", chosen)
    quality(table, "robots, the other half", robots.filter(held_out)["user_agent"])
    for name in PEOPLE:
        kinds = corpus(name).with_columns(kind=pl.lit(name) if name == "traffic" else "kind")
        for (kind,), rows in kinds.group_by("kind", maintain_order=True):
            quality(table, str(kind), rows["user_agent"])
    traffic = corpus("traffic")
    rejected = reasons_of(traffic["user_agent"]).drop_nulls()
    weight = traffic.join(rejected, on="user_agent", how="semi")["weight"].sum()
    table.add("traffic, rejected, weighted", None, None, None, f"{weight:.3%}")
    speed(report)
