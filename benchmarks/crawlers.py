"""How good and how fast is the filter of declared robots? Prints two tables for the documentation, in well under a minute."""

import importlib.metadata
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path

import is_bot
import numpy as np
import polars as pl
from scipy.stats import binomtest

from recsys_ops.cleaning import filter_crawlers
from recsys_ops.settings import CrawlerSettings

CORPORA = Path(__file__).parents[1] / "tests" / "data" / "user_agents"
PEOPLE = ("browsers", "phones", "televisions", "web_views", "apps", "traffic")
EVENTS = 1_000_000
SAMPLE = 5_000
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def corpus(name: str) -> pl.DataFrame:
    return pl.read_csv(CORPORA / f"{name}.tsv", separator="\t", quote_char=None)


def judged(agents: pl.Series) -> pl.DataFrame:
    """``user_agent`` and ``reason`` (null for people) of views so many that every suspect is rejected."""
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


def quality(name: str, agents: pl.Series) -> None:
    reasons = judged(agents)["reason"]
    crawlers, suspects = (
        int((reasons == reason).sum()) for reason in ("crawler", "crawler_suspect")
    )
    interval = binomtest(crawlers + suspects, len(agents)).proportion_ci(method="wilson")
    share = (crawlers + suspects) / len(agents)
    print(
        f"| {name} | {len(agents):,} | {crawlers / len(agents):.1%} | {suspects / len(agents):.1%} "
        f"| {share:.1%} ({interval.low:.1%} to {interval.high:.1%}) |"
    )


def speed() -> None:
    agents = pl.concat([corpus(name)["user_agent"] for name in ("traffic", "robots")])
    rows = agents.gather(np.random.default_rng(0).integers(len(agents), size=EVENTS))
    events = pl.LazyFrame(
        {"user_agent": rows, "event_type": "view", "recorded_at": DAY}
    ).with_row_index("row")
    started = time.perf_counter()
    filter_crawlers(events, CrawlerSettings()).rejected.collect()
    ours = time.perf_counter() - started
    bots = is_bot.Bots()
    started = time.perf_counter()
    for agent in rows.head(SAMPLE):
        bots.is_bot(agent)
    theirs = (time.perf_counter() - started) * EVENTS / SAMPLE
    print(f"\n| {EVENTS:,} events, {len(agents):,} user agents | seconds |\n|---|---|")
    print(f"| `filter_crawlers`, lists compiled before | {ours:.2f} |")
    print(
        f"| `is_bot` row by row, from {SAMPLE:,} rows | {theirs:.0f}, {theirs / ours:.0f} times as long |"
    )


def main() -> None:
    print(
        ", ".join(
            f"{package} {importlib.metadata.version(package)}"
            for package in ("crawler-user-agents", "is-bot", "google-re2")
        )
    )
    print(
        "\n| corpus | user agents | `crawler` | suspect | both (95 %, Wilson) |\n|---|---|---|---|---|"
    )
    robots = corpus("robots")
    held_out = np.array([zlib.crc32(agent.encode()) % 2 == 1 for agent in robots["user_agent"]])
    quality("robots, half used to choose our patterns", robots.filter(~held_out)["user_agent"])
    quality("robots, other half", robots.filter(held_out)["user_agent"])
    for name in PEOPLE:
        for (kind,), rows in (
            corpus(name)
            .with_columns(kind=pl.lit(name) if name == "traffic" else "kind")
            .group_by("kind", maintain_order=True)
        ):
            quality(str(kind), rows["user_agent"])
    traffic = corpus("traffic").join(
        judged(corpus("traffic")["user_agent"]).drop_nulls(), on="user_agent", how="semi"
    )
    print(f"\nWeighted by traffic, taken for robots: {traffic['weight'].sum():.3%}")
    speed()


if __name__ == "__main__":
    main()
