"""The events of people in the demo shop on a day.

Sessions of views by taste, then wishlists, carts, checkouts and purchases.
"""

from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_ops.demo import words
from recsys_ops.demo.shop import STAFF_NETWORK, TEST, Items, Shop, items, people, styles

DAY_SECONDS = 86_400
LINE = (
    "event", "user_id", "item_id", "action", "at", "delay", "quantity", "price", "user_agent", "ip",
    "client", "clock", "label",
)  # fmt: skip

Indices = NDArray[np.int64]


def visits(shop: Shop, day: date) -> pl.DataFrame:
    """The customers' and the staff's rows of a day, one for each item of an event.

    Columns: event (number within the day), user_id, item_id, action, at (second of the day), delay
    (seconds from the event to its recording), quantity, price, user_agent, ip, client (0 new app, 1
    in between, 2 old), clock (0–3: how the client writes a time), label (human, staff,
    test_account).
    """
    rng = shop.rng("visits", day)
    accounts, catalogue = people(shop, day), items(shop, day)
    dirt = shop.dirt
    rows = shop.size.events_per_day * (1 - dirt.crawlers - dirt.scrapers) * _WEEK[shop.age(day) % 7]
    count = int(rng.poisson(rows / _LINES_PER_SESSION))
    person = _draw(rng, accounts.activity, count)

    # one session in a thousand is a wholesaler's
    views = rng.geometric(0.2, count) * np.where(rng.random(count) < 0.001, 30, 1)
    views = np.minimum(views, 600)
    session = np.repeat(np.arange(count), views)
    gap = 4 + (36 * rng.exponential(size=len(session))).astype(np.int64)
    elapsed = np.cumsum(gap)
    elapsed -= np.repeat((elapsed - gap)[np.cumsum(views) - views], views)
    item = _draw_items(rng, _two_styles(rng, shop, accounts.taste[person])[session], catalogue)

    wished = np.flatnonzero(rng.random(len(session)) < 0.04)
    carted = np.flatnonzero(rng.random(len(session)) < 0.15)
    carted = carted[
        np.unique(session[carted] * len(catalogue.ids) + item[carted], return_index=True)[1]
    ]
    last = elapsed[np.cumsum(views) - 1]
    checks_out = rng.random(count) < 0.6
    ordered = carted[checks_out[session[carted]]]
    pays = rng.random(count) < 0.8
    bought = ordered[pays[session[ordered]]]

    first_free = np.cumsum([len(session), len(wished), len(carted), count])
    parts = [
        ("view", np.arange(len(session)), np.arange(len(session)), elapsed),
        ("wishlist", wished, first_free[0] + np.arange(len(wished)), elapsed[wished] + 2),
        ("cart", carted, first_free[1] + np.arange(len(carted)), elapsed[carted] + 3),
        ("checkout", ordered, first_free[2] + session[ordered], last[session[ordered]] + 45),
        ("purchase", bought, first_free[3] + session[bought], last[session[bought]] + 140),
    ]
    view = np.concatenate([views_of for _, views_of, _, _ in parts])
    by = person[session[view]]
    start = np.minimum(_start(rng, count), DAY_SECONDS - 200 - last)
    pieces = np.where(rng.random(len(session)) < 0.12, 2 + rng.integers(0, 3, len(session)), 1)
    action = pl.Series([name for name, *_ in parts])[
        np.repeat(np.arange(len(parts)), [len(views_of) for _, views_of, _, _ in parts])
    ]
    kind = accounts.kind[by]
    return (
        pl.DataFrame(
            {
                "event": np.concatenate([event for _, _, event, _ in parts]),
                "user_id": accounts.ids[by],
                "item_id": catalogue.ids[item[view]],
                "action": action,
                "at": np.concatenate([at for *_, at in parts]) + start[session[view]],
                "delay": rng.integers(1, 90, count)[session[view]],
                "quantity": np.where(
                    action.is_in(["view", "wishlist"]).to_numpy(), 1, pieces[view]
                ),
                "price": catalogue.price[item[view]],
                "label": pl.Series(["human", "staff", "test_account"])[
                    np.where(kind == TEST, 2, np.where(kind > 0, 1, 0))
                ],
            }
        )
        .hstack(_clients(rng, shop, person, accounts.kind)[session[view]])
        .select(LINE)
    )


_WEEK = (0.95, 0.92, 0.96, 1.0, 1.05, 1.1, 1.02)
_HOURS = np.array(
    [2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 11, 12, 11, 10, 10, 11, 13, 15, 18, 20, 18, 12, 6], float
)
_LINES_PER_SESSION = 6.75


def _draw(rng: np.random.Generator, weights: NDArray[np.float64], count: int) -> Indices:
    """`count` indices drawn with replacement, in proportion to the weights."""
    up_to = np.cumsum(weights)
    drawn: Indices = np.searchsorted(up_to, rng.random(count) * up_to[-1], side="right")
    return drawn


def _two_styles(rng: np.random.Generator, shop: Shop, taste: NDArray[np.float64]) -> Indices:
    """For each session two styles drawn from the person's taste, (sessions, 2)."""
    liking = np.exp(np.einsum("sk,ck->sc", taste, styles(shop)))
    up_to = np.cumsum(liking, axis=1)
    draws = rng.random((len(taste), 2)) * up_to[:, -1:]
    chosen: Indices = (draws[:, :, None] > up_to[:, None, :]).sum(axis=2)
    return chosen


def _draw_items(rng: np.random.Generator, wanted: Indices, catalogue: Items) -> Indices:
    """The item of each view, by popularity: of the first style 70 %, the second 20 %, any 10 %."""
    order = np.argsort(catalogue.style, kind="stable")
    up_to = np.cumsum((catalogue.popularity * np.where(catalogue.on_sale, 1.0, 1e-9))[order])
    ends = up_to[np.cumsum(np.bincount(catalogue.style)) - 1]
    starts = np.concatenate([[0.0], ends[:-1]])
    mood = rng.random(len(wanted))
    style = wanted[np.arange(len(wanted)), (mood >= 0.7).astype(np.int64)]
    anywhere = mood >= 0.9
    low, high = np.where(anywhere, 0.0, starts[style]), np.where(anywhere, up_to[-1], ends[style])
    drawn: Indices = order[
        np.searchsorted(up_to, low + rng.random(len(wanted)) * (high - low), side="right")
    ]
    return drawn


def _start(rng: np.random.Generator, count: int) -> Indices:
    return _draw(rng, _HOURS, count) * 3600 + rng.integers(0, 3600, count)


def _clients(rng: np.random.Generator, shop: Shop, person: Indices, kind: Indices) -> pl.DataFrame:
    """User agent, address, client and clock of each session.

    A person has two browsers and one address, which is the office's for some of the staff.
    """
    n_people = len(kind)
    browsers = shop.rng("browsers").integers(0, len(words.BROWSERS), (n_people, 2))
    home = shop.rng("addresses").integers([11, 1, 1, 1], [100, 255, 255, 255], (n_people, 4))
    office = (203, 0, 113, 0) + np.array([0, 0, 0, 1]) * (1 + np.arange(n_people) % 250)[:, None]
    address = np.where((kind == STAFF_NETWORK)[:, None], office, home)[person]
    return pl.DataFrame(
        {
            "user_agent": pl.Series(words.BROWSERS)[
                browsers[person, rng.integers(0, 2, len(person))]
            ],
            "ip": pl.select(
                pl.format("{}.{}.{}.{}", *(pl.lit(pl.Series(part)) for part in address.T))
            ).to_series(),
            "client": pl.Series(_draw(rng, np.array([0.83, 0.05, 0.12]), len(person))),
            "clock": pl.Series(_draw(rng, np.array([0.6, 0.15, 0.12, 0.13]), len(person))),
        }
    )
