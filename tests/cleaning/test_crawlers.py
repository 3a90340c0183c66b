"""Robots that say who they are."""

from pathlib import Path

import crawleruseragents
import pytest

from recsys_ops.cleaning import filter_crawlers
from recsys_ops.cleaning.contract import SCHEMA
from recsys_ops.errors import SettingsError
from recsys_ops.settings import CrawlerSettings

from .conftest import events

PEOPLE = (Path(__file__).parent / "human_user_agents.txt").read_text().splitlines()
CRAWLERS = (Path(__file__).parent / "crawler_user_agents.txt").read_text().splitlines()
# only the broader list matches it
SUSPECT = "Mozilla/5.0 (X11; Linux x86_64) PriceWatch-scanner 3"


def test_no_present_day_browser_is_taken_for_a_crawler() -> None:
    viewing = events(*({"user_agent": agent} for agent in PEOPLE for _ in range(40)))
    cleaned = filter_crawlers(viewing, CrawlerSettings())
    assert cleaned.rejected["value"].unique().to_list() == []
    assert cleaned.notes["suspect_user_agents"] == 0


def test_declared_crawlers_are_rejected_by_their_user_agent() -> None:
    cleaned = filter_crawlers(events(*({"user_agent": agent} for agent in CRAWLERS)), CrawlerSettings())
    assert cleaned.rejected.select("reason", "column", "value").rows() == [("crawler", "user_agent", agent) for agent in CRAWLERS]


def test_every_example_of_the_list_is_found_by_the_compiled_list() -> None:
    agents = [agent for entry in crawleruseragents.CRAWLER_USER_AGENTS_DATA for agent in entry["instances"]]
    cleaned = filter_crawlers(events(*({"user_agent": agent} for agent in agents)), CrawlerSettings())
    assert all("AP3A.240617.008" in agent for agent in cleaned.kept["user_agent"])


def test_missing_user_agent_is_no_crawler() -> None:
    assert filter_crawlers(events({"user_agent": None}), CrawlerSettings()).kept.height == 1


@pytest.mark.parametrize(
    ("views", "last", "rejected"),
    [(30, "view", 31), (30, "cart", 0), (28, "view", 0)],
    ids=["only ever looks", "somebody fills a cart", "too few events to tell"],
)
def test_suspect_user_agent_needs_a_second_signal(views: int, last: str, rejected: int) -> None:
    rows = [{"user_agent": SUSPECT, "user_id": f"u{i}"} for i in range(views)]
    cleaned = filter_crawlers(events(*rows, {"user_agent": SUSPECT, "event_type": last}), CrawlerSettings())
    assert cleaned.rejected["reason"].to_list() == ["crawler_suspect"] * rejected
    assert cleaned.notes["suspect_user_agents"] == 1


def test_allow_list_comes_first() -> None:
    frame = events({"user_agent": "Googlebot/2.1"}, {"user_agent": "bingbot/2.0"})
    cleaned = filter_crawlers(frame, CrawlerSettings(allow=("^Googlebot",)))
    assert cleaned.kept["user_agent"].to_list() == ["Googlebot/2.1"]


def test_wrong_allow_pattern_is_named() -> None:
    with pytest.raises(SettingsError, match=r"cleaning\.crawlers\.allow.*\(\?<!x\)y"):
        filter_crawlers(events({}), CrawlerSettings(allow=("fine", "(?<!x)y")))


def test_versions_of_the_lists_are_in_the_notes() -> None:
    notes = filter_crawlers(events({}).clear(), CrawlerSettings()).notes
    assert notes["crawler_user_agents"]
    assert notes["is_bot"]
    assert notes["is_bot_patterns_outside_re2"] == 6


def test_empty_day_keeps_the_schema() -> None:
    assert filter_crawlers(events({}).clear(), CrawlerSettings()).kept.schema == SCHEMA
