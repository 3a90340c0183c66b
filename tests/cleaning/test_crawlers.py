"""Crawlers, measured on the corpora of tests/data/user_agents, whose README names their sources."""

import time
from collections.abc import Sequence
from pathlib import Path

import crawleruseragents
import is_bot
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cleaning_rows import RECORDED

from recsys_ops.cleaning import filter_crawlers
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.cleaning.crawlers import DECLARED, NOT_CRAWLERS
from recsys_ops.errors import SettingsError
from recsys_ops.settings import CrawlerSettings

CORPORA = Path(__file__).parents[1] / "data" / "user_agents"
PEOPLE = ("browsers", "phones", "televisions", "web_views", "apps")
# only the broader list matches it
SUSPECT = "Mozilla/5.0 (X11; Linux x86_64) PriceWatch-scanner 3"
LISTED = {
    agent for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA for agent in entry["instances"]
}


def corpus(name: str) -> pl.DataFrame:
    return pl.read_csv(CORPORA / f"{name}.tsv", separator="\t", quote_char=None)


def browsers_and_apps() -> pl.DataFrame:
    return pl.concat([corpus(name) for name in PEOPLE])


def views(agents: Sequence[str | None] | pl.Series, each: int = 1) -> pl.LazyFrame:
    """`each` views of an item by every user agent."""
    frame = pl.LazyFrame({"user_agent": agents}, schema={"user_agent": pl.String}).with_columns(
        event_type=pl.lit("view"), recorded_at=pl.lit(RECORDED)
    )
    return pl.concat([frame] * each).with_row_index("row")


def of_types(agent: str, *types: str) -> pl.LazyFrame:
    """An event of each type by the user agent."""
    return views([agent], each=len(types)).with_columns(event_type=pl.Series(types))


def rejected(events: pl.LazyFrame, settings: CrawlerSettings | None = None) -> pl.DataFrame:
    return filter_crawlers(events, settings or CrawlerSettings()).rejected.collect()


def test_no_browser_phone_television_web_view_or_app_is_a_crawler() -> None:
    agents = browsers_and_apps().filter(pl.col("kind") != "bare_app")["user_agent"]
    cleaned = filter_crawlers(views(agents, each=30), CrawlerSettings())
    assert len(agents) >= 650
    assert cleaned.rejected.collect()["value"].unique().to_list() == []
    assert cleaned.notes["suspect_user_agents"] == 0


def test_less_than_a_thousandth_of_real_traffic_is_rejected() -> None:
    traffic = corpus("traffic")
    refused = rejected(views(traffic["user_agent"], each=30))["value"].unique()
    weights = traffic.filter(pl.col("user_agent").is_in(refused.implode()))["weight"].sum()
    assert traffic["weight"].sum() == pytest.approx(1, abs=1e-5)
    assert weights <= 0.001


def test_app_that_says_only_its_name_is_cleared_by_its_first_cart() -> None:
    events = pl.concat(
        [
            views(["MyShop/7.31.0"], each=100),
            views(["MyShop/7.31.0"]).with_columns(event_type=pl.lit("cart")),
        ]
    )
    assert rejected(views(["MyShop/7.31.0"], each=100)).height == 100
    assert rejected(events.drop("row").with_row_index("row")).height == 0


def test_nine_robots_in_ten_that_no_list_has_as_an_example_are_found() -> None:
    robots = corpus("robots")["user_agent"]
    reasons = rejected(views(robots, each=30)).unique("value")["reason"].value_counts()
    counts = dict(reasons.iter_rows())
    assert len(robots) >= 300
    assert counts["crawler"] / len(robots) >= 0.7
    assert (counts["crawler"] + counts["crawler_suspect"]) / len(robots) >= 0.9


@pytest.mark.parametrize(
    "agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; GPTBot/1.2; +https://openai.com/gptbot",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "HeadlessChrome/120.0.6099.109 Safari/537.36",
        "Sogou web spider/4.0(+http://www.sogou.com/docs/help/webmasters.htm#07)",
        "WhatsApp/2.23.20.0 A",
        "python-requests/2.32.3",
        "Go-http-client/2.0",
        "curl/8.5.0",
        "PriceHawkBot/0.3",
    ],
)
def test_declared_crawler_is_rejected_by_its_first_event(agent: str) -> None:
    marks = rejected(views([agent])).select("reason", "column", "value").rows()
    assert marks == [("crawler", "user_agent", agent)]


def test_every_example_of_the_list_is_found_except_phones_and_apps() -> None:
    kept = filter_crawlers(views(sorted(LISTED)), CrawlerSettings()).kept.collect()["user_agent"]
    assert [
        agent
        for agent in kept
        if "AP3A.240617.008" not in agent
        and "MetaIAB Facebook" not in agent
        and not agent.startswith("okhttp/")
    ] == []


def test_patterns_left_out_of_the_lists_are_still_in_them() -> None:
    listed = {entry["pattern"] for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA}
    assert NOT_CRAWLERS - listed - is_bot.Bots().patterns == set()
    assert listed.isdisjoint(DECLARED)


@pytest.mark.parametrize("name", ["browsers", "phones", "televisions", "web_views"])
def test_people_of_each_corpus_come_from_more_than_one_source(name: str) -> None:
    assert corpus(name)["source"].n_unique() >= 2


def test_corpora_are_distinct_and_hold_no_example_of_a_list() -> None:
    robots = corpus("robots")
    agents = pl.concat(
        [browsers_and_apps()["user_agent"], corpus("traffic")["user_agent"], robots["user_agent"]]
    )
    readme = (CORPORA / "README.md").read_text()
    sources = pl.concat(
        [browsers_and_apps()["source"], corpus("traffic")["source"], robots["source"]]
    ).unique()
    assert agents.is_unique().all()
    assert [source for source in sources if f"`{source}`" not in readme] == []
    assert LISTED.isdisjoint(robots["user_agent"])
    assert is_bot.Bots().patterns.isdisjoint(robots["user_agent"].str.to_lowercase())


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        " ",
        "(",
        "/1.1",
        "a ",
        "http",
        "bo",
        "compatible; ",
        "mozilla/5.0 (",
        "\0",
        "\\",
        "é",
        "😀",
        "java;",
        "w 1.1.1.1.1",
    ],
)
def test_very_long_user_agent_does_not_stall_the_day(piece: str) -> None:
    agents = [f"{i}{piece * (100_000 // len(piece))}!" for i in range(5)]
    started = time.perf_counter()
    rejected(views(agents))
    assert time.perf_counter() - started < 5


@given(st.lists(st.one_of(st.none(), st.text(max_size=80))))
def test_no_text_breaks_the_step_and_no_row_is_lost(agents: list[str | None]) -> None:
    cleaned = filter_crawlers(views(agents), CrawlerSettings())
    assert sorted([*cleaned.kept.collect()["row"], *cleaned.rejected.collect()["row"]]) == list(
        range(len(agents))
    )


@pytest.mark.parametrize(
    "agent", [None, "", " ", "-", '"-"', "' - '", '""', "NULL", "(null)", "unknown", "(not set)"]
)
def test_missing_user_agent_is_no_crawler(agent: str | None) -> None:
    assert rejected(views([agent], each=100)).height == 0


@pytest.mark.parametrize(
    "ending",
    [
        "Mobile/15E148 MetaIAB Facebook",
        "Mobile/15E148 [FBAN/FBIOS;FBAV/519.0.0.38.106;FBLC/en_US]",
        "Mobile/15E148 Instagram 387.0.0.33.93 (iPhone15,2; iOS 18_5; de_DE)",
        "Mobile/15E148 musical_ly_40.1.0 JsSdk/2.0 BytedanceWebview/d8a21c6",
        "Mobile/15E148 [Pinterest/iOS]",
        "Version/18.5 Mobile/15E148 Snapchat/13.45.0.52 (like Safari/8621.2.5.10.4, panda)",
        "Mobile/15E148 Safari Line/15.9.0",
        "Mobile/15E148 MicroMessenger/8.0.60(0x18003c2a) NetType/WIFI Language/zh_CN",
    ],
)
def test_shoppers_inside_an_app_are_kept_whatever_they_do(ending: str) -> None:
    agent = (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 "
        f"(KHTML, like Gecko) {ending}"
    )
    assert rejected(views([agent], each=560)).is_empty()
    assert rejected(of_types(agent, "view", "cart", "checkout", "purchase")).is_empty()


@pytest.mark.parametrize(
    "agent",
    [
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        "facebookexternalhit/1.1;line-poker/1.0",
        "Mozilla/5.0 (Linux; Android 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Mobile "
        "Safari/537.36 (compatible; TikTokSpider; ttspider-feedback@tiktok.com)",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) [FBAN/FBIOS] PriceHawkBot/1.0",
    ],
)
def test_preview_fetcher_of_such_an_app_is_a_crawler(agent: str) -> None:
    assert rejected(views([agent]))["reason"].to_list() == ["crawler"]


@pytest.mark.parametrize(
    "agent",
    [
        "axios/1.7.9",
        "python-requests/2.32.3",
        "Python/3.12 aiohttp/3.9.5",
        "Go-http-client/2.0",
        "Apache-HttpClient/4.5.13 (Java/1.8.0_292)",
        "node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
        "GuzzleHttp/6.5.5 curl/7.68.0 PHP/7.4.3",
        "okhttp/4.12.0",
        "WordPress/6.4; https://shop.example",
        "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
    ],
)
def test_orders_that_a_backend_reports_are_kept(agent: str) -> None:
    orders = of_types(agent, "cart", "checkout", "purchase")
    cleaned = filter_crawlers(orders, CrawlerSettings())
    assert cleaned.kept.collect().height == 3
    listed = not agent.startswith(("GuzzleHttp", "okhttp"))
    assert cleaned.notes["conversions_of_libraries_kept"] == 3 * listed


@pytest.mark.parametrize("agent", ["axios/1.7.9", "GuzzleHttp/7"], ids=["listed", "suspect"])
def test_views_under_a_library_go_also_beside_orders(agent: str) -> None:
    events = of_types(agent, *["view"] * 40, "purchase")
    assert rejected(events)["row"].to_list() == list(range(40))


def test_declared_crawler_that_shops_is_rejected_with_a_warning() -> None:
    googlebot = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
    cleaned = filter_crawlers(of_types(googlebot, "view", "cart", "purchase"), CrawlerSettings())
    assert cleaned.rejected.collect().height == 3
    assert cleaned.warnings == (
        "2 carts, checkouts and purchases under 1 user agents are rejected as crawlers'. "
        "If people shop with them, add them to cleaning.crawlers.allow",
    )
    assert filter_crawlers(views([googlebot]), CrawlerSettings()).warnings == ()


@pytest.mark.parametrize(
    ("looks", "last", "rows"),
    [(30, "view", 31), (30, "cart", 0), (28, "view", 0)],
    ids=["only ever looks", "somebody fills a cart", "too few events to tell"],
)
def test_suspect_user_agent_needs_a_second_signal(looks: int, last: str, rows: int) -> None:
    events = views([SUSPECT], each=looks + 1).with_columns(
        event_type=pl.Series(["view"] * looks + [last])
    )
    cleaned = filter_crawlers(events, CrawlerSettings())
    assert cleaned.rejected.collect()["reason"].to_list() == ["crawler_suspect"] * rows
    assert cleaned.notes["suspect_user_agents"] == 1


def test_suspect_user_agent_is_examined_day_by_day() -> None:
    busy, quiet = (
        views([SUSPECT], each=40),
        views([SUSPECT], each=20).with_columns(pl.col("recorded_at").dt.offset_by("1d")),
    )
    assert rejected(busy).height == 40
    assert rejected(quiet).is_empty()
    assert rejected(pl.concat([busy.drop("row"), quiet.drop("row")]).with_row_index("row"))[
        "row"
    ].to_list() == list(range(40))


def test_allow_list_comes_first() -> None:
    events = views(["Googlebot/2.1", "bingbot/2.0"])
    assert rejected(events, CrawlerSettings(allow=("^Googlebot",)))["value"].to_list() == [
        "bingbot/2.0"
    ]


def test_wrong_allow_pattern_is_named() -> None:
    with pytest.raises(SettingsError, match=r"cleaning\.crawlers\.allow.*\(\?<!x\)y"):
        filter_crawlers(views(["Firefox"]), CrawlerSettings(allow=("fine", "(?<!x)y")))


def test_versions_of_the_lists_are_in_the_notes() -> None:
    notes = filter_crawlers(views([]), CrawlerSettings()).notes
    assert notes["crawler_user_agents"]
    assert notes["is_bot"]
    assert notes["is_bot_patterns_outside_re2"] == 3


def test_empty_day_keeps_the_schema() -> None:
    empty = pl.LazyFrame(schema=SCHEMA).with_row_index("row")
    assert filter_crawlers(empty, CrawlerSettings()).kept.collect_schema() == empty.collect_schema()
