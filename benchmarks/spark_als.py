"""``python benchmarks/spark_als.py [--shapes S] [--factors 64] [--iterations 15]``: Spark's ALS on this machine, beside als.py.

Spark is no dependency. It needs Java 17 (Debian: ``apt install openjdk-17-jre-headless``) and an environment of its own::

    python3 -m venv ~/spark-venv && ~/spark-venv/bin/pip install pyspark numpy scipy
    PYTHONPATH=plugins ~/spark-venv/bin/python benchmarks/spark_als.py

Confidences are equal (rating = confidence − 1, alpha = 1). The regularisation cannot be: Spark multiplies it by the number of
the row's cells, where als.py has 16 for each row. So several values are tried, and each is printed. A sweep's
seconds: what all sweeps but the first take, over their number.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import shapes
from measure import machine
from numpy.typing import NDArray
from pyspark import __version__
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame, SparkSession

from recsys_ops.evaluation.metrics import ndcg_by_user

N = 20
AT_ONCE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=shapes.SHAPES, default=["S"])
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--regularization", nargs="+", type=float, default=[0.05, 0.3, 2])
    parser.add_argument(
        "--folder", type=Path, default=shapes.CACHE, help="where the shapes are kept"
    )
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    builder = (
        SparkSession.builder.master(f"local[{cores}]")
        .config("spark.driver.memory", "4g")
        .config("spark.ui.enabled", False)
        .config("spark.ui.showConsoleProgress", False)
    )
    print(f"{machine()}; Spark {__version__}, local[{cores}], 4 GiB")
    print(
        "\n| shape | regularisation | s a sweep | s, all sweeps | NDCG@20 |\n|---|--:|--:|--:|--:|"
    )
    with builder.getOrCreate() as spark, tempfile.TemporaryDirectory() as folder:
        spark.sparkContext.setLogLevel("ERROR")
        for name in options.shapes:
            data = shapes.load(name, options.folder)
            ratings = cells(spark, data, Path(folder, f"{name}.csv"), cores)
            for regularization in options.regularization:
                als = ALS(
                    rank=options.factors,
                    regParam=regularization,
                    implicitPrefs=True,
                    alpha=1.0,
                    seed=1,
                )
                als = als.setNumBlocks(cores)
                first = min(
                    fit(als, ratings, 1)[2] for _ in range(2)
                )  # the virtual machine compiles while it runs
                user, item, seconds = fit(als, ratings, options.iterations)
                score = ndcg(
                    data, padded(user, data.train.shape[0]), padded(item, data.train.shape[1])
                )
                sweep = (seconds - first) / (options.iterations - 1)
                print(
                    f"| {name} | {regularization} | {sweep:.2f} | {seconds:.1f} | {score:.4f} |",
                    flush=True,
                )


def cells(spark: SparkSession, data: shapes.Data, path: Path, parts: int) -> DataFrame:
    """The matrix as rows in memory."""
    stored = data.train.tocoo()
    np.savetxt(
        path,
        np.column_stack([stored.row, stored.col, stored.data - 1]),
        fmt=["%d", "%d", "%.9g"],
        delimiter=",",
    )
    rows = (
        spark.read.csv(str(path), schema="user INT, item INT, rating FLOAT")
        .repartition(parts)
        .cache()
    )
    assert rows.count() == data.train.nnz
    return rows


def fit(als: ALS, ratings: DataFrame, sweeps: int) -> tuple[DataFrame, DataFrame, float]:
    """Users' factors, items' factors and the seconds they took."""
    began = time.perf_counter()
    model = als.setMaxIter(sweeps).fit(ratings)
    return model.userFactors, model.itemFactors, time.perf_counter() - began


def padded(factors: DataFrame, count: int) -> NDArray[np.float32]:
    """(count, factors); zeros for those of whom Spark knows nothing."""
    rows = factors.collect()
    found = np.zeros((count, len(rows[0]["features"])), dtype=np.float32)
    found[[row["id"] for row in rows]] = [row["features"] for row in rows]
    return found


def ndcg(data: shapes.Data, user: NDArray[np.float32], item: NDArray[np.float32]) -> float:
    judged = np.flatnonzero(np.diff(data.holdout.indptr))
    listed = []
    for start in range(0, len(judged), AT_ONCE):
        some = judged[start : start + AT_ONCE]
        scores = user[some] @ item.T
        scores[data.train[some].nonzero()] = -np.inf
        best = np.argpartition(-scores, N, axis=1)[:, :N]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        listed.append(np.take_along_axis(best, order, axis=1).astype(np.int32))
    return float(ndcg_by_user(np.concatenate(listed), data.holdout[judged], N).mean())


if __name__ == "__main__":
    main()
