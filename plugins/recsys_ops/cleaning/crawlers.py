"""Declared robots: user agents that the maintained lists of crawlers know."""

import importlib.metadata
from collections.abc import Iterable
from functools import cache

import crawleruseragents
import is_bot
import polars as pl
import re2

from recsys_ops.cleaning.cleaned import Cleaned, split
from recsys_ops.errors import SettingsError
from recsys_ops.settings import CrawlerSettings

# listed, yet ordinary people: a build of Android 15
NOT_CRAWLERS = frozenset({r"AP3A\.240617\.008"})
SHOPPING = ("cart", "checkout", "purchase")
SUSPECT_EVENTS = 30
# RE2's own 8 MiB suffice for today's lists; with room its automaton is not rebuilt time and again
MEMORY = 1 << 28


def filter_crawlers(frame: pl.DataFrame, settings: CrawlerSettings) -> Cleaned:
    """Reject the events of user agents that say, or seem to say, that they are robots.

    frame : DataFrame, (n_rows, canonical event frame).
    ``crawler``: the list of the package crawler-user-agents has the user agent. ``crawler_suspect``: only the broader patterns of
    is-bot match it, and a second signal agrees: over all rows it has at least 30 events, and nobody with it ever filled a cart,
    checked out or bought. What `settings.allow` matches is never a crawler, nor is a missing user agent. Every distinct user
    agent is matched once.

    Raises SettingsError when a pattern of `settings.allow` is not an RE2 regular expression.
    """
    allowed = _allow(settings.allow)
    agents = frame["user_agent"].drop_nulls().unique(maintain_order=True)
    known = pl.DataFrame(
        {"user_agent": agents, "kind": [None if _matches(allowed, agent) else _kind(agent) for agent in agents]},
        schema={"user_agent": pl.String, "kind": pl.String},
    )
    seen = frame.select("user_agent", "event_type").join(known, on="user_agent", how="left", maintain_order="left")
    shops = pl.col("event_type").is_in(SHOPPING).any().over("user_agent")
    unconfirmed = (pl.col("kind") == "crawler_suspect") & (shops | (pl.len().over("user_agent") < SUSPECT_EVENTS))
    reason = pl.when(~unconfirmed).then("kind")
    marks = seen.select(
        reason=reason,
        column=pl.when(reason.is_not_null()).then(pl.lit("user_agent")),
        value=pl.when(reason.is_not_null()).then("user_agent"),
    )
    notes: dict[str, object] = {
        "crawler_user_agents": importlib.metadata.version("crawler-user-agents"),
        "is_bot": importlib.metadata.version("is-bot"),
        "is_bot_patterns_outside_re2": len(_broad()[1]),
        "ignored_patterns": sorted(NOT_CRAWLERS),
        "suspect_user_agents": known.filter(pl.col("kind") == "crawler_suspect").height,
    }
    return split(frame, marks, notes=notes)


def _allow(patterns: tuple[str, ...]) -> re2.Set | None:
    if not patterns:
        return None
    allowed, refused = _compile(patterns, case_sensitive=True)
    if refused:
        raise SettingsError(f"cleaning.crawlers.allow: not RE2 regular expressions: {', '.join(refused)}")
    return allowed


def _kind(agent: str) -> str | None:
    if _matches(_listed(), agent):
        return "crawler"
    patterns, outside_re2 = _broad()
    if _matches(patterns, agent) or is_bot.Bots(outside_re2).is_bot(agent):
        return "crawler_suspect"
    return None


@cache
def _listed() -> re2.Set:
    """The patterns of crawler-user-agents. A list that RE2 cannot compile must not shrink in silence."""
    patterns, refused = _compile(
        (entry["pattern"] for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA if entry["pattern"] not in NOT_CRAWLERS),
        case_sensitive=True,
    )
    assert not refused, f"RE2 cannot compile these patterns of crawler-user-agents: {refused}"
    return patterns


@cache
def _broad() -> tuple[re2.Set, tuple[str, ...]]:
    """The patterns of is-bot, and those of them that look around, which RE2 cannot and is-bot's own matcher runs."""
    return _compile(sorted(is_bot.Bots().patterns), case_sensitive=False)


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
