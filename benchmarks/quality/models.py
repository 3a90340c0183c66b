"""The model beside popularity and item-kNN, on demo shops or on any pair of interaction files.

``make bench-quality ARGS="--train F --test F [--test-fold-in F] [--tune 40] [--max-factors 512]"``
    files of any published split: .csv, .tsv, .dat, … or .parquet; user, item[, value] are the first
    two columns and one named value, weight, count or quantity, or ``--columns``. Ids are text; a
    missing value is 1; repeats are summed.
``make bench-quality ARGS="[--uci F] [--tune 40]"``
    the demo shop, and the UCI Online Retail II sales: trained until a day, evaluated on the new
    carts and purchases of the days after it; the sales again with one customer in five held out.

There are two ways to evaluate (Liang, Krishnan, Hoffman & Jebara 2018). Weak generalisation: the
test's users are in ``--train``. Strong generalisation: they are not; their known items are in
``--test-fold-in``, and their factors are solved from the fitted item factors. A user's known items
are neither listed nor part of the hold-out. A user without hold-out or without known items is not
evaluated. Items that are nowhere in ``--train`` count as missed.

NDCG@k and recall@k are those of `recsys_ops.evaluation.metrics`, the mean over the users.
*Truncated recall*, hits over min(k, liked), and NDCG@100 are what Liang et al. 2018 and Rendle,
Krichene, Zhang & Koren 2021 ("Revisiting the performance of iALS on item recommendation
benchmarks") report. Intervals: 95 %, percentile bootstrap over users; in the last column of each
user's gain.

``--tune N``: N trials of a seeded search (Optuna, TPE). The first trial has the default settings.
Each is fitted on a part of the training data and evaluated on the rest: of shops the days before,
of files a tenth of the pairs, or of the users where there is a ``--test-fold-in``. The best
settings are fitted again on all training data; the test chooses nothing. Rendle et al. give an
empty cell the weight α₀ and every stored one 1 + α₀, which is our confidence 1 + 1/α₀; of pairs
without a value ours is 1 + alpha · log 2. The range of alpha is that of α₀ = 5 … 0.005. With
``regularization_exponent`` 1 (their ν) their λ is our regularization · sqrt(m·n / (mean sᵤ · mean
sᵢ)) / (1 + α₀); for MovieLens-20M their 0.003 is about 0.09.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, ItemItemRecommender
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks.harness import Report, timed
from benchmarks.quality.defaults import OPENS, SIZES, Source, demo, uci
from recsys_ops.als import cpu
from recsys_ops.als.factors import Factors, row_regularization
from recsys_ops.als.fit import fit
from recsys_ops.als.top_n import top_n
from recsys_ops.evaluation.metrics import Scores, lower_bound, score, self_information
from recsys_ops.interactions.matrix import build_interactions
from recsys_ops.settings import EvaluationSettings, TrainingSettings, load_settings

SHOPS = ("demo, small", "demo, medium")
K = (20, 50, 100)
NEIGHBOURS = 100
DRAWS = 1000
DEFAULT = "ALS, default"
ALPHA, REGULARIZATION, ITERATIONS, LEAST_FACTORS = (0.3, 300.0), (0.005, 1.0), (10, 20), 32
FOLD_IN_SWEEPS = 8
VALIDATION_PAIRS, MOST_VALIDATIONS = 30_000, 5
VALUE = ("value", "weight", "count", "quantity")
Lists = NDArray[np.int32]


@dataclass(frozen=True)
class Split:
    """Training data, and the hold-out of the evaluated users.

    train : csr_matrix, (n_users, n_items), float64, log1p of the summed values, above 0
    users : int, (n_evaluated,), the rows of `train` of the evaluated users; None if not in it
    known : csr_matrix, (n_evaluated, n_items), their known items, values as in `train`
    liked : csr_matrix, (n_evaluated, n_items), bool, their hold-out
    """

    train: sparse.csr_matrix
    users: NDArray[np.int64] | None
    known: sparse.csr_matrix
    liked: sparse.csr_matrix


@dataclass(frozen=True)
class Chosen:
    alpha: float
    training: TrainingSettings

    def __str__(self) -> str:
        names = ("factors", "regularization", "regularization_exponent", "iterations")
        values = {"alpha": self.alpha} | {name: getattr(self.training, name) for name in names}
        return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument(
        "--test-fold-in",
        type=Path,
        help="what is known of the test's users, who are not in --train",
    )
    parser.add_argument(
        "--columns", nargs="+", help="names or places (0, 1, …) of user, item and perhaps value"
    )
    parser.add_argument("--uci", type=Path, help="the Online Retail II data")
    parser.add_argument("--tune", type=int, default=0, metavar="N", help="trials")
    parser.add_argument("--tune-for", default="ndcg@20", choices=[f"ndcg@{k}" for k in K])
    parser.add_argument("--max-factors", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)


def run(options: argparse.Namespace, report: Report) -> None:
    if bool(options.train) != bool(options.test) or (options.test_fold_in and not options.train):
        sys.exit("--train and --test need each other, and --test-fold-in needs both")
    if options.columns and len(options.columns) not in (2, 3):
        sys.exit("--columns needs two or three values: user, item and perhaps value")
    for name, split, validations in splits(options):
        compare(name, split, validations, options, report)


def splits(options: argparse.Namespace) -> Iterator[tuple[str, Split, Iterator[Split]]]:
    """Each data set's name, its split, and splits of its training data for tuning."""
    seeds = range(options.seed, options.seed + MOST_VALIDATIONS)
    if options.train:
        split = of_files(options)
        part = without_users if options.test_fold_in else without_pairs
        yield options.train.name, split, (part(split.train, 0.1, seed) for seed in seeds)
        return
    for name in SHOPS[: 1 if options.quick else None]:
        yield name, *of_days(demo(name, SIZES[name]), OPENS + timedelta(days=27), 7)
    if options.uci:
        source = uci(options.uci)
        yield "UCI, the last weeks", *of_days(source, date(2010, 10, 31), 39)
        interactions = table(source.events.select("user_id", "item_id", value=pl.lit(1.0)))
        everybody = from_tables(interactions, interactions).train
        split = without_users(everybody, 0.2, options.seed)
        yield (
            "UCI, customers held out",
            split,
            (without_users(split.train, 0.2, seed) for seed in seeds),
        )


def compare(
    name: str,
    split: Split,
    validations: Iterator[Split],
    options: argparse.Namespace,
    report: Report,
) -> None:
    """One table: the metrics of popularity, item-kNN and our model on a split."""
    settings = load_settings()
    default = Chosen(settings.confidence.alpha, settings.training)
    models: dict[str, Callable[[Split], Lists]] = {
        "popularity": by_popularity,
        "item-kNN, cosine": partial(by_neighbours, CosineRecommender(NEIGHBOURS)),
        "item-kNN, BM25": partial(by_neighbours, BM25Recommender(NEIGHBOURS)),
        DEFAULT: partial(by_als, default),
    }
    note = describe(name, split) + f"; default: {default}"
    if options.tune:
        chosen = tuned(default, list(enough(validations)), options)
        models["ALS, tuned"] = partial(by_als, chosen)
        note += f"; tuned: {chosen}"
    popular, information = popularity(split.train).argsort()[::-1], self_information(split.train)
    scores = {
        model: score(
            made(split),
            split.liked,
            K,
            most_popular=popular[: K[-1]].astype(np.int32),
            information=information,
        )
        for model, made in models.items()
    }
    shown = [f"{metric}@{k}" for metric in ("NDCG", "recall") for k in (K[0], K[-1])]
    table = report.table(
        f"models, {name}",
        {
            **dict.fromkeys(["", *shown], ""),
            f"coverage@{K[0]}": ".1%",
            f"novelty@{K[0]}": ".2f",
            f"NDCG@{K[0]} against {DEFAULT}": "",
        },
        note,
    )
    for model, values in scores.items():
        metrics, intervals = values.metrics(), with_intervals(values)
        table.add(
            model,
            *(intervals[column] for column in shown),
            metrics[f"coverage@{K[0]}"],
            metrics[f"novelty@{K[0]}"],
            against(values, scores[DEFAULT]),
        )
    others = [column for column in intervals if column not in shown]
    table = report.table(f"models, {name}, more", dict.fromkeys(["", *others], ""))
    for model, values in scores.items():
        intervals = with_intervals(values)
        table.add(model, *(intervals[column] for column in others))


def describe(name: str, split: Split) -> str:
    users, items = split.train.shape
    place = "in" if split.users is not None else "not in"
    return (
        f"{name}: {users:,} users, {items:,} items, {split.train.nnz:,} pairs; "
        f"{split.known.shape[0]:,} users evaluated by {split.liked.nnz:,} pairs, "
        f"who are {place} the training data"
    )


def with_intervals(scores: Scores) -> dict[str, str]:
    """NDCG, recall and truncated recall at each cut-off, each with half its interval."""
    values = {}
    for k, ndcg, hits in zip(K, scores.ndcg, scores.hits, strict=True):
        values[f"NDCG@{k}"] = ndcg
        values[f"recall@{k}"] = hits / scores.n_liked
        values[f"truncated recall@{k}"] = hits / np.minimum(scores.n_liked, k)
    bounds = {name: interval(each) for name, each in values.items()}
    return {
        name: f"{each.mean():.4f} ± {(bounds[name][1] - bounds[name][0]) / 2:.4f}"
        for name, each in values.items()
    }


def against(scores: Scores, other: Scores) -> str:
    """The gain and its interval, paired by user."""
    gains = scores.ndcg[0] - other.ndcg[0]
    low, high = interval(gains)
    return "" if scores is other else f"{gains.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    return lower_bound(values, DRAWS, seed=1), -lower_bound(-values, DRAWS, seed=1)


def popularity(train: sparse.csr_matrix) -> NDArray[np.int64]:
    return np.bincount(train.indices, minlength=train.shape[1])


def by_popularity(split: Split) -> Lists:
    everybody = np.ones((split.known.shape[0], 1), dtype=np.float32)
    return best(everybody, popularity(split.train)[:, None].astype(np.float32), split)


def by_neighbours(model: ItemItemRecommender, split: Split) -> Lists:
    with warnings.catch_warnings(action="ignore"):  # it warns about its own conversion
        model.fit(split.train, show_progress=False)
    everybody = np.arange(split.known.shape[0])
    return model.recommend(everybody, split.known, N=K[-1], filter_already_liked_items=True)[
        0
    ].astype(np.int32)


def by_als(chosen: Chosen, split: Split) -> Lists:
    train = confidence(split.train, chosen.alpha)
    factors = fit(train, chosen.training, iterations=chosen.training.iterations)
    if split.users is not None:
        users = factors.user[split.users]
    else:
        users = folded_in(confidence(split.known, chosen.alpha), train, factors, chosen.training)
    return best(users, factors.item, split)


def best(users: NDArray[np.float32], items: NDArray[np.float32], split: Split) -> Lists:
    return top_n(users, items, K[-1], seen=split.known, eligible=popularity(split.train) > 0)[0]


def confidence(weights: sparse.csr_matrix, alpha: float) -> sparse.csr_matrix:
    return sparse.csr_matrix(
        ((1 + alpha * weights.data).astype(np.float32), weights.indices, weights.indptr),
        weights.shape,
    )


def folded_in(
    known: sparse.csr_matrix, train: sparse.csr_matrix, factors: Factors, training: TrainingSettings
) -> NDArray[Any]:
    """The factors of users outside the fit, as a half-sweep solves them, (n_known, factors)."""
    weights = row_regularization(train, training)[0]

    def total(rows: sparse.csr_matrix) -> NDArray[np.float64]:
        return (
            rows.shape[1]
            + np.asarray((rows - rows.astype(bool)).sum(axis=1, dtype=np.float64)).ravel()
        )

    # On the scale of the fitted users: the penalty of a row grows with its summed confidence to the
    # power of the exponent.
    scaled = weights[0] * (total(known) / total(train[:1])[0]) ** training.regularization_exponent
    users = np.zeros((known.shape[0], training.factors), dtype=np.float32)
    with threadpool_limits(1, user_api="blas"), cpu.ThreadPoolExecutor(cpu.os.cpu_count()) as pool:
        for _ in range(FOLD_IN_SWEEPS):
            cpu._half_sweep(known, users, factors.item, scaled.astype(np.float32), pool)
    return users


def enough(validations: Iterator[Split]) -> Iterator[Split]:
    """As many splits as it takes to tell one setting from another."""
    pairs = 0
    for validation in validations:
        if pairs < VALIDATION_PAIRS:
            yield validation
            pairs += validation.liked.nnz


def tuned(default: Chosen, validations: list[Split], options: argparse.Namespace) -> Chosen:
    """The settings of the best trial; each trial is printed to the standard error."""
    cutoff = [f"ndcg@{k}" for k in K].index(options.tune_for)
    sizes = [
        2**n for n in range(LEAST_FACTORS.bit_length() - 1, 16) if 2**n <= options.max_factors
    ] or [options.max_factors]

    def evaluate(trial: optuna.Trial) -> float:
        chosen = Chosen(
            trial.suggest_float("alpha", *ALPHA, log=True),
            default.training.model_copy(
                update={
                    "factors": sizes[trial.suggest_int("log2_factors", 0, len(sizes) - 1)],
                    "regularization": trial.suggest_float(
                        "regularization", *REGULARIZATION, log=True
                    ),
                    "regularization_exponent": trial.suggest_float("regularization_exponent", 0, 1),
                    "iterations": trial.suggest_int("iterations", *ITERATIONS),
                }
            ),
        )

        def mean_ndcg() -> float:
            parts = (
                score(by_als(chosen, part), part.liked, K, most_popular=np.zeros(0, dtype=np.int32))
                for part in validations
            )
            return float(np.mean([scores.ndcg[cutoff].mean() for scores in parts]))

        ndcg, cost = timed(mean_ndcg)
        trial.set_user_attr("chosen", chosen)
        print(
            f"trial {trial.number}: {options.tune_for} {ndcg:.4f}, {chosen}, {cost.seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        return ndcg

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=options.seed, multivariate=True),
    )
    study.enqueue_trial(
        {
            "alpha": default.alpha,
            "log2_factors": sizes.index(default.training.factors)
            if default.training.factors in sizes
            else 0,
            **default.training.model_dump(
                include={"regularization", "regularization_exponent", "iterations"}
            ),
        }
    )
    study.optimize(evaluate, n_trials=options.tune)
    return study.best_trial.user_attrs["chosen"]


def of_files(options: argparse.Namespace) -> Split:
    train, test = (read(file, options.columns) for file in (options.train, options.test))
    return from_tables(
        train, test, read(options.test_fold_in, options.columns) if options.test_fold_in else None
    )


def read(file: Path, columns: list[str] | None) -> pl.DataFrame:
    """user and item String, value Float64; any order, repeats summed."""
    if file.suffix == ".parquet":
        frame = pl.read_parquet(file)
    else:
        with file.open(errors="replace") as lines:
            first = lines.readline()
        separators = ("::", "\t", ",", ";", "|")
        separator = next((each for each in separators if each in first), " ")
        named = any(
            "user" in field.lower() or field.lower().strip('" ') in ("uid", "u")
            for field in first.split(separator)
        )
        text = file.read_bytes().replace(b"::", b"\t") if separator == "::" else file
        frame = pl.read_csv(
            text, separator=separator.replace("::", "\t"), has_header=named, infer_schema=False
        )
    places = [
        frame.columns[int(name)] if name.isdigit() else name
        for name in columns or frame.columns[:2]
    ]
    if columns is None:
        places += [name for name in frame.columns[2:] if name.lower() in VALUE][:1]
    return table(frame.select(places))


def table(frame: pl.DataFrame) -> pl.DataFrame:
    names = dict(zip(frame.columns, ("user", "item", "value"), strict=False))
    rows = frame.rename(names).drop_nulls(["user", "item"])
    value = (
        pl.col("value").cast(pl.Float64).fill_null(1)
        if "value" in rows.columns
        else pl.lit(1.0).alias("value")
    )
    typed = rows.select(pl.col("user", "item").cast(pl.String), value)
    return typed.group_by("user", "item").agg(pl.col("value").sum()).filter(pl.col("value") > 0)


def from_tables(
    train: pl.DataFrame, test: pl.DataFrame, folded: pl.DataFrame | None = None
) -> Split:
    items = pl.concat([train["item"], test["item"]]).unique().sort()
    train_users = train["user"].unique().sort()
    users = train_users if folded is None else folded["user"].unique().sort()
    matrices = [
        as_matrix(train, train_users, items),
        as_matrix(train if folded is None else folded, users, items),
    ]
    return evaluated(*matrices, as_matrix(test, users, items), in_train=folded is None)


def as_matrix(interactions: pl.DataFrame, users: pl.Series, items: pl.Series) -> sparse.csr_matrix:
    """Of those users and items alone; log1p of the values."""
    codes = interactions.select(
        pl.col("user").cast(pl.Enum(users), strict=False).to_physical(),
        pl.col("item").cast(pl.Enum(items), strict=False).to_physical(),
        pl.col("value").log1p(),
    ).drop_nulls()
    place = (codes["user"].to_numpy(), codes["item"].to_numpy())
    return sparse.csr_matrix((codes["value"].to_numpy(), place), shape=(len(users), len(items)))


def evaluated(
    train: sparse.csr_matrix, known: sparse.csr_matrix, test: sparse.csr_matrix, *, in_train: bool
) -> Split:
    """A split of the users who have items in both `known` and `test`.

    Known items are not part of the hold-out.
    """
    new = (test.astype(bool) > known.astype(bool)).tocsr()
    rows = np.flatnonzero((np.diff(new.indptr) > 0) & (np.diff(known.indptr) > 0))
    return Split(train, rows if in_train else None, known[rows], new[rows])


def of_days(source: Source, last: date, days: int) -> tuple[Split, Iterator[Split]]:
    """Train until `last` and evaluate on the days after it; and earlier splits, for tuning."""
    earlier = (
        _of_days(source, last - timedelta(days=ago), days) for ago in (days, days + 2, days + 4)
    )
    return _of_days(source, last, days), earlier


def _of_days(source: Source, last: date, days: int) -> Split:
    settings = load_settings()
    plain = settings.confidence.model_copy(update={"alpha": 1.0})
    day, kind = pl.col("day"), pl.col("event_type")
    built = build_interactions(source.events.filter(day <= last), last, plain, EvaluationSettings())
    later = source.events.filter(
        day > last, day <= last + timedelta(days=days), kind.is_in(settings.evaluation.events)
    )
    liked = as_matrix(
        table(later.select("user_id", "item_id", value=pl.lit(1.0))), built.users, built.items
    )
    weights = built.full.astype(np.float64)
    weights.data -= 1
    return evaluated(weights, weights, liked, in_train=True)


def without_pairs(train: sparse.csr_matrix, share: float, seed: int) -> Split:
    """A share of the pairs is held out."""
    masked = np.random.default_rng(seed).random(train.nnz) < share
    kept, held = (_of_cells(train, chosen) for chosen in (~masked, masked))
    return evaluated(kept, kept, held, in_train=True)


def without_users(train: sparse.csr_matrix, share: float, seed: int) -> Split:
    """A share of the users is held out; four fifths of their items are known."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(train.shape[0], dtype=bool)
    held_out[rng.permutation(train.shape[0])[: int(share * train.shape[0])]] = True
    rows = train[np.flatnonzero(held_out)]
    hidden = rng.random(rows.nnz) < 0.2
    known, liked = (_of_cells(rows, chosen) for chosen in (~hidden, hidden))
    return evaluated(train[np.flatnonzero(~held_out)], known, liked, in_train=False)


def _of_cells(matrix: sparse.csr_matrix, chosen: NDArray[np.bool_]) -> sparse.csr_matrix:
    ends = np.append(0, np.cumsum(chosen))[matrix.indptr]
    values = (matrix.data[chosen], matrix.indices[chosen], ends)
    return sparse.csr_matrix(values, shape=matrix.shape)
