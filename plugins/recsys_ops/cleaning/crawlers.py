"""Declared robots: user agents that say so, or that the maintained lists of crawlers know."""

import importlib.metadata
from collections.abc import Iterable
from functools import cache

import crawleruseragents
import is_bot
import polars as pl
import re2

from recsys_ops.cleaning.result import Cleaned, split_rejected
from recsys_ops.errors import SettingsError
from recsys_ops.settings import CrawlerSettings

# in one of the two lists, yet also in the user agents of ordinary people
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
        "okhttp",  # what an Android app says that sets no name of its own
        "catch",  # Catcher, in Vewd's browser on Hisense and other televisions
        "discovery",  # General Mobile's and other phones
        "manager",  # LG's televisions: WebAppManager
        "spider",  # a tablet Spider 8; DECLARED has the robots
        "tools",  # WeChat's web views: Process/tools
        "torrent",  # Opera, edition utorrent
        r"\|",  # apps that write their name, system and version as a table's row
        r"(?:^|[^g])news(?!sapphire)",  # web views of NewsBreak and Apple News
        r"(?<! channel/|google/)google(?!(?:wv|app|/google| pixel))",  # Google TV; DECLARED has the robots
        r"(?<! cu)bots?(?:\b|_)",  # phones M BOT and POWER BOT; DECLARED has the robots
    }
)
# what a user agent says of itself, in words no present-day browser, device or app uses there
DECLARED = (
    "https?://",  # where to complain
    r"(?i)bots?/",
    r"(?i)^(?:[^(]*(?:[^(u]|[^(c]u))?bots?\b",  # a product's name, no phone's: they are in brackets, or Cubot's
    r"(?i)compatible;[^;)]*bots?\b",
    "(?i)crawl",
    r"(?i)spider(?:[^ \d]|$)",
    r"\bGoogle-[A-Z]",
    "^Blackboard Safeassign",
    "^(?:Viber|WhatsApp)(?:/|$)",
)
# the libraries with which apps speak to a shop: nothing else in such a user agent makes it suspect
APPS = (r"\b(?:Alamofire|CFNetwork|Dalvik|Dart|UnityPlayer|okhttp)/", "(?i)^ktor.client")
SHOPPING = ("cart", "checkout", "purchase")
SUSPECT_EVENTS = 30
# RE2's own 8 MiB suffice for today's lists; with room its automaton is not rebuilt time and again
MEMORY = 1 << 28


def filter_crawlers(events: pl.LazyFrame, settings: CrawlerSettings) -> Cleaned:
    """Reject the events of user agents that say, or seem to say, that they are robots.

    events : LazyFrame, (n_rows, ``row`` and the canonical event frame). Memory grows with the distinct user agents of each day.
    ``crawler``: the user agent declares it, or the list of the package crawler-user-agents has it. ``crawler_suspect``: only the
    broader patterns of is-bot match it, it is no app's, and a second signal agrees: on the UTC day of `recorded_at` it has at
    least 30 events, and nobody with it filled a cart, checked out or bought. What `settings.allow` matches is never a crawler,
    nor is a missing user agent. Every distinct user agent is matched once, in time linear in its length.

    Raises SettingsError when a pattern of `settings.allow` is not an RE2 regular expression.
    """
    allowed = _allow(settings.allow)
    day = pl.col("recorded_at").dt.date().alias("day")
    agent_days = (
        events.filter(pl.col("user_agent").is_not_null())
        .group_by("user_agent", day)
        .agg(events=pl.len(), shops=pl.col("event_type").is_in(SHOPPING).any())
        .collect(engine="streaming")
    )
    agents = agent_days["user_agent"].unique()
    kinds = [None if _matches(allowed, agent) else _kind(agent) for agent in agents]
    known = agent_days.join(
        pl.DataFrame({"user_agent": agents, "reason": pl.Series(kinds, dtype=pl.String)}),
        on="user_agent",
    )
    unconfirmed = (pl.col("reason") == "crawler_suspect") & (
        pl.col("shops") | (pl.col("events") < SUSPECT_EVENTS)
    )
    robots = known.filter(pl.col("reason").is_not_null() & ~unconfirmed).select(
        "user_agent", "day", "reason"
    )
    marks = (
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
        "suspect_user_agents": known.filter(pl.col("reason") == "crawler_suspect")[
            "user_agent"
        ].n_unique(),
    }
    return split_rejected(events, marks, notes)


def _allow(patterns: tuple[str, ...]) -> re2.Set | None:
    if not patterns:
        return None
    allowed, refused = _compile(patterns, case_sensitive=True)
    if refused:
        raise SettingsError(
            f"cleaning.crawlers.allow: not RE2 regular expressions: {', '.join(refused)}"
        )
    return allowed


def _kind(agent: str) -> str | None:
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
    """The patterns of crawler-user-agents and ours. A list that RE2 cannot compile must not shrink in silence."""
    listed = (entry["pattern"] for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA)
    patterns, refused = _compile((*DECLARED, *(set(listed) - NOT_CRAWLERS)), case_sensitive=True)
    assert not refused, f"RE2 cannot compile these patterns of crawler-user-agents: {refused}"
    return patterns


@cache
def _apps() -> re2.Set:
    return _compile(APPS, case_sensitive=True)[0]


@cache
def _broad() -> tuple[re2.Set, tuple[str, ...]]:
    """The patterns of is-bot, and those of them that look around, which RE2 cannot and is-bot's own matcher runs."""
    return _compile(sorted(is_bot.Bots().patterns - NOT_CRAWLERS), case_sensitive=False)


def _compile(patterns: Iterable[str], *, case_sensitive: bool) -> tuple[re2.Set, tuple[str, ...]]:
    options = re2.Options()
    options.case_sensitive = case_sensitive
    options.log_errors = False
    options.max_mem = MEMORY
    compiled, refused = re2.Set.SearchSet(options), []
    for pattern in patterns:
        try:
            compiled.Add(pattern)
        except re2.error:
            refused.append(pattern)
    compiled.Compile()
    return compiled, tuple(refused)


def _matches(patterns: re2.Set | None, agent: str) -> bool:
    return patterns is not None and bool(patterns.Match(agent))
