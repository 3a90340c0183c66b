"""Crawlers: robots that their user agent declares, or that maintained lists contain."""

import importlib.metadata
from collections.abc import Iterable
from functools import cache

import crawleruseragents
import is_bot
import polars as pl
import re2

from recsys_ops.cleaning.result import Cleaned, split_rejected
from recsys_ops.errors import SettingsError
from recsys_ops.settings import CONVERSIONS, CrawlerSettings

# patterns of the two lists that also match the user agents of ordinary people
NOT_CRAWLERS = frozenset(
    {
        r"AP3A\.240617\.008",  # a build of Android 15
        r"008\/",  # Opera Mini 4.4.39008/
        "Blackboard",  # web views of the app of schools; the robot's full name is in DECLARED
        "Butterfly",  # HTC's phones
        "Fever",  # tablets Fever_Plus
        "Sonic",  # ViewSonic's tablets
        "Sogou",  # SogouMobileBrowser; the robots say spider
        "sogou",
        "Viber",  # web views of the messengers; their robots begin with the name
        "WhatsApp",
        "okhttp",  # an Android app that sets no name of its own
        "catch",  # Catcher, in Vewd's browser on Hisense and other televisions
        "discovery",  # General Mobile's and other phones
        "manager",  # LG's televisions: WebAppManager
        "spider",  # a tablet Spider 8; DECLARED has the robots
        "tools",  # WeChat's web views: Process/tools
        "torrent",  # Opera, edition utorrent
        r"\|",  # apps that write their name, system and version as a table's row
        r"(?:^|[^g])news(?!sapphire)",  # web views of NewsBreak and Apple News
        # Google TV; DECLARED has the robots
        r"(?<! channel/|google/)google(?!(?:wv|app|/google| pixel))",
        r"(?<! cu)bots?(?:\b|_)",  # phones M BOT and POWER BOT; DECLARED has the robots
    }
)
# words by which robots declare themselves; no present-day browser, device or app uses them there
DECLARED = (
    "https?://",  # an address for complaints
    r"(?i)bots?/",
    # the name of a product; the names of phones are in brackets, or are Cubot
    r"(?i)^(?:[^(]*(?:[^(u]|[^(c]u))?bots?\b",
    r"(?i)compatible;[^;)]*bots?\b",
    "(?i)crawl",
    r"(?i)spider(?:[^ \d]|$)",
    r"\bGoogle-[A-Z]",
    "^Blackboard Safeassign",
    "^(?:Viber|WhatsApp)(?:/|$)",
)
# HTTP libraries of apps: a user agent with one of them is never suspect
APPS = (r"\b(?:Alamofire|CFNetwork|Dalvik|Dart|UnityPlayer|okhttp)/", "(?i)^ktor.client")
SUSPECT_EVENTS = 30
# RE2's default of 8 MiB is enough for the lists, but then it rebuilds its automaton repeatedly
MEMORY = 1 << 28


def filter_crawlers(events: pl.LazyFrame, settings: CrawlerSettings) -> Cleaned:
    """Reject the events of user agents that declare, or seem to declare, a robot.

    events : LazyFrame, (n_rows, ``row`` and the canonical event frame). Memory grows with the
        distinct user agents of each day.

    ``crawler``: the user agent declares it, or the list of the package crawler-user-agents has it.
    ``crawler_suspect``: only the broader patterns of the package is-bot match, it is not an app's,
    and its events confirm it: on the UTC day of `recorded_at` it has at least 30 events, and nobody
    with it filled a cart, checked out or bought. A user agent that `settings.allow` matches is
    never a crawler, and neither is a missing one. Every distinct user agent is matched once, in
    time linear in its length.

    Raises SettingsError when a pattern of `settings.allow` is not an RE2 regular expression.
    """
    allowed = _allow(settings.allow)
    day = pl.col("recorded_at").dt.date().alias("day")
    agent_days = (
        events.filter(pl.col("user_agent").is_not_null())
        .group_by("user_agent", day)
        .agg(events=pl.len(), converts=pl.col("event_type").is_in(CONVERSIONS).any())
        .collect(engine="streaming")
    )
    agents = agent_days["user_agent"].unique()
    reasons = [None if _matches(allowed, agent) else _reason(agent) for agent in agents]
    matched = agent_days.join(
        pl.DataFrame({"user_agent": agents, "reason": pl.Series(reasons, dtype=pl.String)}),
        on="user_agent",
    )
    unconfirmed = (pl.col("reason") == "crawler_suspect") & (
        pl.col("converts") | (pl.col("events") < SUSPECT_EVENTS)
    )
    robots = matched.filter(pl.col("reason").is_not_null() & ~unconfirmed).select(
        "user_agent", "day", "reason"
    )
    rejections = (
        events.select("row", "user_agent", day)
        .join(robots.lazy(), on=["user_agent", "day"])
        .select("row", "reason", column=pl.lit("user_agent"), value="user_agent")
        .collect(engine="streaming")
    )
    notes: dict[str, object] = {
        "crawler_user_agents": importlib.metadata.version("crawler-user-agents"),
        "is_bot": importlib.metadata.version("is-bot"),
        "is_bot_patterns_outside_re2": len(_broad()[1]),
        "ignored_patterns": sorted(NOT_CRAWLERS),
        "suspect_user_agents": matched.filter(pl.col("reason") == "crawler_suspect")[
            "user_agent"
        ].n_unique(),
    }
    return split_rejected(events, rejections, notes)


def _allow(patterns: tuple[str, ...]) -> re2.Set | None:
    if not patterns:
        return None
    allowed, invalid = _compile(patterns, case_sensitive=True)
    if invalid:
        raise SettingsError(
            f"cleaning.crawlers.allow: not RE2 regular expressions: {', '.join(invalid)}"
        )
    return allowed


def _reason(agent: str) -> str | None:
    if _matches(_listed(), agent):
        return "crawler"
    if _matches(_apps(), agent):
        return None
    patterns, outside_re2 = _broad()
    if _matches(patterns, agent) or is_bot.Bots(outside_re2).is_bot(agent):
        return "crawler_suspect"
    return None


@cache
def _listed() -> re2.Set:
    """The patterns of crawler-user-agents, and ours; each must compile in RE2."""
    listed = (entry["pattern"] for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA)
    patterns, invalid = _compile((*DECLARED, *(set(listed) - NOT_CRAWLERS)), case_sensitive=True)
    assert not invalid, f"RE2 cannot compile these patterns of crawler-user-agents: {invalid}"
    return patterns


@cache
def _apps() -> re2.Set:
    return _compile(APPS, case_sensitive=True)[0]


@cache
def _broad() -> tuple[re2.Set, tuple[str, ...]]:
    """The patterns of is-bot, and those with lookarounds, which RE2 cannot compile."""
    return _compile(sorted(is_bot.Bots().patterns - NOT_CRAWLERS), case_sensitive=False)


def _compile(patterns: Iterable[str], *, case_sensitive: bool) -> tuple[re2.Set, tuple[str, ...]]:
    options = re2.Options()
    options.case_sensitive = case_sensitive
    options.log_errors = False
    options.max_mem = MEMORY
    compiled, invalid = re2.Set.SearchSet(options), []
    for pattern in patterns:
        try:
            compiled.Add(pattern)
        except re2.error:
            invalid.append(pattern)
    compiled.Compile()
    return compiled, tuple(invalid)


def _matches(patterns: re2.Set | None, agent: str) -> bool:
    return patterns is not None and bool(patterns.Match(agent))
