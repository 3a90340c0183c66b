"""Crawlers: robots that their user agent declares, or that maintained lists contain."""

import importlib.metadata
from collections.abc import Iterable
from functools import cache

import crawleruseragents
import is_bot
import polars as pl
import re2

from recsys_ops.cleaning.parsing import NO_VALUE
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
        "Expanse",  # a phone; DECLARED has the scanner
        "Fever",  # tablets Fever_Plus
        "Sonic",  # ViewSonic's tablets
        "Sogou",  # SogouMobileBrowser; the robots say spider
        "sogou",
        "Viber",  # web views of the messengers; their robots begin with the name
        "WhatsApp",
        "okhttp",  # an Android app that sets no name of its own
        "24x7",  # a tablet of 1024x720
        "capture",  # phones Capture+
        "catch",  # Catcher, in Vewd's browser on Hisense and other televisions
        "chromeframe",  # Internet Explorer with Chrome's engine
        "discovery",  # General Mobile's and other phones
        "manager",  # LG's televisions: WebAppManager
        "radar",  # HTC's phones, Superion's tablets
        "spider",  # a tablet Spider 8; DECLARED has the robots
        "tools",  # WeChat's web views: Process/tools
        "torrent",  # Opera, edition utorrent
        "virtuoso",  # Aurii's phones
        r"^[^ ]{50,}$",  # old phones and UC Browser write no blank
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
    "^Expanse,",
    "^(?:Viber|WhatsApp)(?:/|$)",
)
# HTTP libraries of apps: a user agent with one of them is never suspect
APPS = (r"\b(?:Alamofire|CFNetwork|Dalvik|Dart|UnityPlayer|okhttp)/", "(?i)^ktor.client")
# browsers inside apps, which name the app; a user agent with one of them is no crawler unless it
# declares itself, whatever the lists say
IN_APP_BROWSERS = (
    r"^Mozilla/5\.0 \((?:iPhone|iPad|iPod|Linux; (?:U; )?Android).*\b(?:"
    "FBAN|FBAV|FB_IAB|MetaIAB|IABMV|Instagram|Barcelona|BytedanceWebview|musical_ly|trill|aweme|"
    "Pinterest|Snapchat|Twitter|TwitterAndroid|LinkedInApp|Reddit|Tumblr|Line|KAKAOTALK|NAVER|"
    "MicroMessenger|MQQBrowser|AliApp|Viber|GSA|BingSapphire|NewsBreak|Flipboard|Klarna"
    r")\b",
)
# HTTP libraries, and senders of webhooks: with them the backend of a shop reports its own orders
LIBRARIES = (
    r"(?i)^(?:axios|node-fetch|node|undici|got|request|(?:node-)?superagent|deno|bun|"
    r"python-requests|python-httpx|python-urllib3?|python/\S+ aiohttp|aiohttp|"
    r"go-http-client|go-resty|fasthttp|reqwest|hyper|ureq|hackney|"
    r"apache-http(?:async)?client|jakarta commons-httpclient|java|java-http-client|"
    r"google-http-java-client|unirest-java|reactornetty|jersey|apache.cxf|ahc|jetty|okhttp|"
    r"guzzlehttp|symfony httpclient|php|php-soap|php-curl-class|(?:lib)?curl|pecl::http|"
    r"faraday|ruby|rest-client|http\.rb|typhoeus|restsharp|libwww-perl|lwp::simple|"
    r"analytics-(?:node|python|php|ruby|go|java)|segment\.io|"
    r"wordpress|woocommerce|magento|shopify-captain-hook|stripe|zapier|sfdc-callout|"
    r"recurly webhooks|svix-webhooks)(?:[^\w]|$)",
)
# how logs write that there was no user agent
NO_AGENT = rf"{NO_VALUE}|^(?i:unknown)$"
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
    with it filled a cart, checked out or bought.

    Under the user agent of an HTTP library or a webhook, conversions are kept: a shop's backend
    reports its orders so. A user agent that `settings.allow` matches is never a crawler, and
    neither is a missing one or a browser inside an app. Every distinct user agent is matched once,
    in time linear in its length.

    Raises SettingsError when a pattern of `settings.allow` is not an RE2 regular expression.
    """
    allowed = _allow(settings.allow)
    day = pl.col("recorded_at").dt.date().alias("day")
    converts = pl.col("event_type").is_in(CONVERSIONS)
    agent_days = (
        events.filter(pl.col("user_agent").is_not_null())
        .group_by("user_agent", day)
        .agg(events=pl.len(), converts=converts.any())
        .collect(engine="streaming")
        .filter(~pl.col("user_agent").str.contains(NO_AGENT))
    )
    agents = agent_days["user_agent"].unique()
    reasons = [None if _matches(allowed, agent) else _reason(agent) for agent in agents]
    matched = agent_days.join(
        pl.DataFrame(
            {
                "user_agent": agents,
                "reason": pl.Series(reasons, dtype=pl.String),
                "library": pl.Series(
                    [_matches(_libraries(), agent) for agent in agents], dtype=pl.Boolean
                ),
            }
        ),
        on="user_agent",
    )
    cleared = pl.col("converts") & ~pl.col("library")
    unconfirmed = (pl.col("reason") == "crawler_suspect") & (
        cleared | (pl.col("events") < SUSPECT_EVENTS)
    )
    robots = matched.filter(pl.col("reason").is_not_null() & ~unconfirmed).select(
        "user_agent", "day", "reason", "library"
    )
    rows = (
        events.select("row", "user_agent", day, converts=converts)
        .join(robots.lazy(), on=["user_agent", "day"])
        .select(
            "row", "reason", "library", "converts", column=pl.lit("user_agent"), value="user_agent"
        )
        .collect(engine="streaming")
    )
    reported = pl.col("library") & pl.col("converts")
    shopping = rows.filter("converts", ~pl.col("library"))
    warnings: tuple[str, ...] = ()
    if shopping.height:
        warnings = (
            f"{shopping.height:,} carts, checkouts and purchases under "
            f"{shopping['value'].n_unique():,} user agents are rejected as crawlers'. "
            "If people shop with them, add them to cleaning.crawlers.allow",
        )
    notes: dict[str, object] = {
        "crawler_user_agents": importlib.metadata.version("crawler-user-agents"),
        "is_bot": importlib.metadata.version("is-bot"),
        "is_bot_patterns_outside_re2": len(_broad()[1]),
        "ignored_patterns": sorted(NOT_CRAWLERS),
        "suspect_user_agents": matched.filter(pl.col("reason") == "crawler_suspect")[
            "user_agent"
        ].n_unique(),
        "conversions_of_libraries_kept": rows.filter(reported).height,
    }
    rejections = rows.filter(~reported).drop("library", "converts")
    return split_rejected(events, rejections, notes, warnings)


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
    if _matches(_declared(), agent):
        return "crawler"
    if _matches(_in_app_browsers(), agent):
        return None
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
    """The patterns of crawler-user-agents; each must compile in RE2."""
    listed = {entry["pattern"] for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA}
    patterns, invalid = _compile(sorted(listed - NOT_CRAWLERS), case_sensitive=True)
    assert not invalid, f"RE2 cannot compile these patterns of crawler-user-agents: {invalid}"
    return patterns


@cache
def _declared() -> re2.Set:
    return _compile(DECLARED, case_sensitive=True)[0]


@cache
def _in_app_browsers() -> re2.Set:
    return _compile(IN_APP_BROWSERS, case_sensitive=True)[0]


@cache
def _libraries() -> re2.Set:
    return _compile(LIBRARIES, case_sensitive=True)[0]


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
