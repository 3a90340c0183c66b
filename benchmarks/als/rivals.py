"""The package `implicit` with its own defaults, and our settings on equal terms."""

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_ops.als.factors import Factors, row_regularization
from recsys_ops.settings import TrainingSettings

N = 20
REGULARIZATION = 16.0


def by_implicit(factors: int, user_items: sparse.csr_matrix, iterations: int) -> Factors:
    with threadpool_limits(1, user_api="blas"):  # implicit asks for this
        model = AlternatingLeastSquares(
            factors=factors, regularization=REGULARIZATION, iterations=iterations, random_state=1
        )
        model.fit(user_items, show_progress=False)
    return Factors(model.user_factors, model.item_factors)


def by_implicit_gpu(factors: int, user_items: sparse.csr_matrix, iterations: int) -> Factors:
    from implicit.gpu.als import AlternatingLeastSquares as GpuAlternatingLeastSquares

    model = GpuAlternatingLeastSquares(
        factors=factors, regularization=REGULARIZATION, iterations=iterations, random_state=1
    )
    model.fit(user_items, show_progress=False)
    return Factors(model.user_factors.to_numpy(), model.item_factors.to_numpy())


def recommend(
    factors: Factors, user_items: sparse.csr_matrix
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    with threadpool_limits(1, user_api="blas"):
        model = AlternatingLeastSquares(factors=factors.user.shape[1])
        model.user_factors, model.item_factors = factors.user, factors.item
        listed, scores = model.recommend(np.arange(user_items.shape[0]), user_items, N=N)
    listed[scores < -1e38] = -1  # no item was left for this place
    return listed, scores


def settings(factors: int, solver: str, user_items: sparse.csr_matrix) -> TrainingSettings:
    """Settings whose L2 penalty for this matrix is `REGULARIZATION`, as in `implicit`."""
    one = TrainingSettings(
        factors=factors, solver=solver, regularization=1, regularization_exponent=0
    )
    return one.model_copy(
        update={"regularization": REGULARIZATION / float(row_regularization(user_items, one)[0][0])}
    )
