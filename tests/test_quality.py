"""The quality benchmark on a user's own files: reading them, and users outside the training."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks.__main__ import main
from benchmarks.quality import models
from scipy import sparse

from recsys_ops.settings import TrainingSettings, load_settings


@pytest.fixture(autouse=True)
def fresh() -> None:
    load_settings.cache_clear()


def shop(users: int, items: int, seed: int) -> pl.DataFrame:
    """Two tastes, each with half of the items."""
    rng = np.random.default_rng(seed)
    likes = np.where(np.arange(items) % 2 == np.arange(users)[:, None] % 2, 0.4, 0.03)
    user, item = np.nonzero(rng.random((users, items)) < likes)
    return pl.DataFrame(
        {
            "user": [f"u{n}" for n in user],
            "item": [f"i{n}" for n in item],
            "value": np.ones(len(user)),
        }
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "userId,movieId,rating,timestamp\n1,31,2.5,9\n7,5,4,8\n"),
        ("a.dat", "1::31::2.5::9\n7::5::4::8\n"),
        ("u.data", "1\t31\t2.5\t9\n7\t5\t4\t8\n"),
        ("a.csv", "uid,sid\n1,31\n7,5\n7,\n"),
        ("a.tsv", "user_id:token\titem_id:token\tvalue\n1\t31\t1\n7\t5\t\n"),
    ],
)
def test_files_are_read_with_and_without_names_ratings_are_no_values(
    tmp_path: Path, name: str, text: str
):
    (tmp_path / name).write_text(text)
    found = models.read(tmp_path / name, None).sort("user")
    assert found.rows() == [("1", "31", 1.0), ("7", "5", 1.0)]


def test_values_of_a_pair_are_summed_and_columns_may_be_named(tmp_path: Path):
    pl.DataFrame(
        {"when": [1, 2], "who": ["a", "a"], "what": ["x", "x"], "times": [2, 3]}
    ).write_parquet(tmp_path / "a.parquet")
    assert models.read(tmp_path / "a.parquet", ["who", "what", "times"]).rows() == [("a", "x", 5.0)]
    assert models.read(tmp_path / "a.parquet", ["1", "2"]).rows() == [("a", "x", 2.0)]


def test_folded_in_users_get_the_factors_of_the_fit():
    table = shop(60, 40, seed=1)
    known = models.from_tables(table, table).train
    training = TrainingSettings(factors=8, regularization_exponent=0.7)
    train = models.confidence(known, 16.0)
    factors = models.fit(train, training, iterations=60)
    folded = models.folded_in(train, train, factors, training)
    # the users' half comes before the items', so both are at rest only nearly
    assert folded == pytest.approx(factors.user, abs=0.02 * float(np.abs(factors.user).max()))


@pytest.mark.parametrize("strong", [False, True])
def test_a_split_is_fitted_tuned_and_scored(
    tmp_path: Path,
    strong: bool,
):
    table = shop(120, 60, seed=2)
    masked = pl.Series(np.random.default_rng(3).random(table.height) < 0.2)
    outside = (
        table["user"].is_in([f"u{n}" for n in range(0, 120, 3)])
        if strong
        else pl.Series([False]).new_from_index(0, len(table))
    )
    parts = {
        "train": ~masked & ~outside,
        "test": masked & (outside | (not strong)),
        "fold": outside & ~masked,
    }
    for name, rows in parts.items():
        table.filter(rows).write_csv(tmp_path / f"{name}.csv")
    arguments = [
        "--train",
        tmp_path / "train.csv",
        "--test",
        tmp_path / "test.csv",
        "--tune",
        "2",
        "--max-factors",
        "32",
    ]
    arguments += ["--test-fold-in", tmp_path / "fold.csv"] if strong else []
    main(["quality.models", "--results", str(tmp_path / "results"), *map(str, arguments)])
    (result,) = (tmp_path / "results").rglob("quality.json")
    table = json.loads(result.read_text())["tables"]["models, train.csv"]
    ndcg = {row[0]: float(row[1].split()[0]) for row in table["rows"]}
    assert list(ndcg) == [
        "popularity",
        "item-kNN, cosine",
        "item-kNN, BM25",
        "ALS, default",
        "ALS, tuned",
    ]
    assert (
        min(ndcg["ALS, default"], ndcg["ALS, tuned"], ndcg["item-kNN, cosine"])
        > 1.2 * ndcg["popularity"]
        > 0
    )


def test_known_items_and_users_without_hold_out_are_not_evaluated():
    train = pl.DataFrame(
        {"user": ["a", "a", "b"], "item": ["x", "y", "x"], "value": [1.0, 1.0, 1.0]}
    )
    test = pl.DataFrame(
        {"user": ["a", "a", "b", "c"], "item": ["x", "z", "x", "x"], "value": [1.0] * 4}
    )
    split = models.from_tables(train, test)
    assert split.users.tolist() == [0]
    assert split.liked.toarray().tolist() == [[False, False, True]]
    assert isinstance(split.train, sparse.csr_matrix)


def test_the_settings_can_say_what_rendle_et_al_minimise():
    """Rendle et al.'s objective, after their exact ALS and after our fit with the same settings."""
    unobserved, weight, exponent, factors = 0.1, 0.02, 0.8, 8
    table = shop(80, 50, seed=4)
    seen = models.from_tables(table, table).train.toarray() > 0
    frequency = [
        ((seen.sum(axis=axis) + unobserved * seen.shape[axis]) ** exponent) * weight
        for axis in (1, 0)
    ]

    def objective(user: np.ndarray, item: np.ndarray) -> float:
        scores = user @ item.T
        penalties = [
            of @ np.square(side).sum(axis=1)
            for of, side in zip(frequency, (user, item), strict=True)
        ]
        # of all scalings of the two sides the best: the scores are the same
        return (
            ((1 - scores)[seen] ** 2).sum()
            + unobserved * (scores**2).sum()
            + 2 * np.sqrt(penalties[0] * penalties[1])
        )

    sides = [
        np.random.default_rng(n).normal(0, 0.1 / np.sqrt(factors), (size, factors))
        for n, size in enumerate(seen.shape)
    ]
    for _ in range(40):
        for this, rows in ((0, seen), (1, seen.T)):
            other = sides[1 - this]
            left = unobserved * other.T @ other + np.einsum("ij,jk,jl->ikl", rows, other, other)
            left += frequency[this][:, None, None] * np.eye(factors)
            sides[this] = np.linalg.solve(left, (rows @ other)[:, :, None])[:, :, 0]

    alpha = 1 / (unobserved * np.log(2))
    confidence = models.confidence(sparse.csr_matrix(seen * np.log(2)), alpha)
    extra = seen.sum() / unobserved
    means = [
        extra / size + columns for size, columns in zip(seen.shape, seen.shape[::-1], strict=True)
    ]
    share = (
        weight
        * (1 + unobserved)
        * unobserved ** (exponent - 1)
        * (means[0] * means[1]) ** (exponent / 2)
        / (extra / np.sqrt(seen.size))
    )
    training = TrainingSettings(
        factors=factors, regularization=share, regularization_exponent=exponent
    )
    found = models.fit(confidence, training, iterations=40)
    # (1 − s)² + α₀ s² is least at s = 1 / (1 + α₀), where ours is at 1
    scale = 1 / np.sqrt(1 + unobserved)
    ours, theirs = objective(found.user * scale, found.item * scale), objective(*sides)
    assert ours == pytest.approx(theirs, rel=0.005)
