"""The demo shop's accounts, tastes and products; the tables `users` and `products` on a day."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys_ops.demo import words

OFFICE_NETWORK = "203.0.113.0/24"
OFFICE_DOMAIN = "demo-shop.example"
TEST_ACCOUNTS = r"^test\+\d+@"

CUSTOMER, STAFF_ROLE, ADMIN_ROLE, STAFF_MAIL, STAFF_NETWORK, TEST = range(6)


@dataclass(frozen=True)
class ShopSize:
    """Accounts and products on the opening day; rows of `events` on an average day with robots."""

    users: int
    items: int
    events_per_day: int


TINY = ShopSize(users=80, items=150, events_per_day=400)
DEMO = ShopSize(users=2_500, items=600, events_per_day=8_500)
LARGE = ShopSize(users=300_000, items=20_000, events_per_day=1_000_000)


@dataclass(frozen=True)
class Dirt:
    """Shares of dirty rows: robots of all rows, the others of the customers' rows."""

    crawlers: float = 0.06
    scrapers: float = 0.06
    corrupt: float = 0.012
    duplicate: float = 0.01
    future: float = 0.003
    late: float = 0.01


@dataclass(frozen=True)
class Shop:
    """A shop that opens on a day. These four values determine all its data, each day by itself.

    Its n-th day is the same whenever it opens, and its week begins with its first day. So figures
    do not change with the calendar.
    """

    size: ShopSize
    opens: date
    seed: int = 1
    dirt: Dirt = field(default_factory=Dirt)

    def rng(self, subject: str, day: date | None = None) -> np.random.Generator:
        """A generator of its own for a subject, or for a subject on a day."""
        return np.random.default_rng(
            [self.seed, crc32(subject.encode()), 1 + self.age(day) if day else 0]
        )

    def age(self, day: date) -> int:
        """Days since the opening, 0 before it."""
        return max(0, (day - self.opens).days)


@dataclass(frozen=True)
class Items:
    """Products that exist on a day, in the order of their creation; one entry a product."""

    ids: pl.Series
    style: NDArray[np.int64]
    price: NDArray[np.float64]
    popularity: NDArray[np.float64]
    on_sale: NDArray[np.bool_]


@dataclass(frozen=True)
class People:
    """Accounts that exist on a day, in the order of their creation.

    taste : (n_users, 6), an account likes a style by ``exp(taste · style)``
    """

    ids: pl.Series
    kind: NDArray[np.int64]
    created: NDArray[np.int64]
    activity: NDArray[np.float64]
    taste: NDArray[np.float64]


def items(shop: Shop, day: date) -> Items:
    """The products that exist on a day. Popularity is Zipf-like: rank r has the weight r^-0.6."""
    count = shop.size.items + shop.age(day) * max(1, shop.size.items // 300)
    index = np.arange(count)
    style = index % _N_STYLES
    usual = np.array([price for price, _, _ in words.CATEGORIES.values()])[style // 3]
    price = np.round(usual * np.exp(0.35 * shop.rng("price").standard_normal(count)), 2)
    popularity = np.maximum(shop.rng("popularity").random(count), 1e-3) ** -0.6
    return Items(
        _ids("p", count), style, price, popularity, shop.age(day) < _withdrawn_at(shop, count)
    )


def people(shop: Shop, day: date) -> People:
    """The accounts that exist on a day. A few are active, most are not; new ones are, that day."""
    per_day = max(1, shop.size.users // 200)
    count = shop.size.users + shop.age(day) * per_day
    index = np.arange(count)
    before = -shop.rng("created").integers(1, 1000, count)
    created = np.where(index < shop.size.users, before, 1 + (index - shop.size.users) // per_day)
    activity = np.exp(shop.rng("activity").standard_normal(count)) * np.where(
        created == shop.age(day), 5.0, 1.0
    )
    kind = np.full(count, CUSTOMER)
    for offset, special in (
        (7, STAFF_ROLE),
        (23, ADMIN_ROLE),
        (41, STAFF_MAIL),
        (59, STAFF_NETWORK),
        (71, TEST),
    ):
        kind[offset::160] = special
    return People(
        _ids("u", count),
        kind,
        created,
        activity,
        shop.rng("taste").standard_normal((count, _N_LATENT)),
    )


def styles(shop: Shop) -> NDArray[np.float64]:
    """The styles in the space of tastes, (36, 6); the three styles of a category are close."""
    categories = shop.rng("categories").standard_normal((len(words.CATEGORIES), _N_LATENT))
    return np.repeat(categories, 3, axis=0) + 0.6 * shop.rng("styles").standard_normal(
        (_N_STYLES, _N_LATENT)
    )


def products(shop: Shop, day: date) -> pl.DataFrame:
    """The table `products` at the end of a day.

    It has the new products; withdrawn ones are draft or archived, and some are sold out.
    """
    catalogue = items(shop, day)
    index = np.arange(len(catalogue.ids))
    number = index // _N_STYLES
    # 37 and 96 have no common factor, so each colour and thing is used before one is repeated
    combination = number * 37 % 96
    category = catalogue.style // 3
    thing = pl.Series([thing for _, _, things in words.CATEGORIES.values() for thing in things])[
        category * 6 + combination // 16
    ]
    style = pl.Series([style for _, three, _ in words.CATEGORIES.values() for style in three])[
        catalogue.style
    ]
    stock = shop.rng("stock", day).poisson(30, len(index)) * (
        shop.rng("sold out", day).random(len(index)) > 0.05
    )
    withdrawn = np.where(index % 3 == 0, "draft", "archived")
    return pl.DataFrame(
        {
            "product_id": catalogue.ids,
            "colour": pl.Series(words.COLOURS)[combination % 16],
            "style": style,
            "thing": thing,
            "edition": number // 96 + 1,
            "category": pl.Series(list(words.CATEGORIES))[category],
            "price": catalogue.price,
            "stock": stock.astype(np.int64),
            "status": np.where(catalogue.on_sale, "published", withdrawn),
        }
    ).select(
        "product_id",
        (
            pl.format("{} {} {}", "colour", "style", "thing")
            + pl.when(pl.col("edition") > 1)
            .then(pl.format(" no. {}", "edition"))
            .otherwise(pl.lit(""))
        ).alias("title"),
        "category",
        "price",
        "stock",
        "status",
    )


def users(shop: Shop, day: date) -> pl.DataFrame:
    """The table `users` at the end of a day."""
    accounts = people(shop, day)
    count = len(accounts.ids)
    names = shop.rng("names").integers(
        0, [len(words.FIRST_NAMES), len(words.LAST_NAMES), len(words.MAIL_DOMAINS)], (count, 3)
    )
    kind = pl.col("kind")
    opening = datetime.combine(shop.opens, time(0, 30), UTC)
    return pl.DataFrame(
        {
            "user_id": accounts.ids,
            "kind": accounts.kind,
            "number": np.arange(count),
            "first": pl.Series(words.FIRST_NAMES)[names[:, 0]],
            "last": pl.Series(words.LAST_NAMES)[names[:, 1]],
            "domain": pl.Series(words.MAIL_DOMAINS)[names[:, 2]],
            "created": accounts.created,
        }
    ).select(
        "user_id",
        pl.when(kind == TEST)
        .then(pl.format("test+{}@mailbox.example", "number"))
        .when(kind.is_in([STAFF_ROLE, ADMIN_ROLE, STAFF_MAIL]))
        .then(pl.format("{}.{}@" + OFFICE_DOMAIN, "first", "last"))
        .otherwise(pl.format("{}.{}{}@{}", "first", "last", "number", "domain"))
        .alias("email"),
        kind.replace_strict({STAFF_ROLE: "staff", ADMIN_ROLE: "admin"}, default="customer").alias(
            "role"
        ),
        (pl.lit(opening) + pl.duration(days="created")).alias("created_at"),
    )


_N_LATENT = 6
_N_STYLES = 3 * len(words.CATEGORIES)


def _ids(letter: str, count: int) -> pl.Series:
    return pl.select(letter + pl.int_range(1, count + 1).cast(pl.String).str.zfill(5)).to_series()


def _withdrawn_at(shop: Shop, count: int) -> NDArray[np.int64]:
    """The shop's age in days when a product is withdrawn: 6 % within two months, 2 % on day 0."""
    draw = shop.rng("withdrawn").random((count, 2))
    leaves = 1 + (draw[:, 1] * 60).astype(np.int64)
    return np.where(draw[:, 0] < 0.02, 0, np.where(draw[:, 0] < 0.08, leaves, timedelta.max.days))
