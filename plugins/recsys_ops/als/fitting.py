"""Implicit-feedback ALS (Hu, Koren & Volinsky 2008) on the CPU, with the solver of the package `implicit`."""

from implicit.cpu.als import AlternatingLeastSquares
from implicit.recommender_base import ModelFitError
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_ops.als.factors import Factors, small_random
from recsys_ops.errors import ModelError
from recsys_ops.settings import TrainingSettings


def fit(
    user_items: sparse.csr_matrix, settings: TrainingSettings, *, iterations: int, factors0: Factors | None = None
) -> Factors:
    """Factorise, from `factors0` (warm) or from small seeded numbers (cold). The same input gives the same bytes.

    Each half-sweep takes three steps of conjugate gradients from the factors it has instead of solving exactly (Takács,
    Pilászy & Tikk 2011): about a tenth of the work, and the sweeps make up for it.

    user_items : csr_matrix, (n_users, n_items), float32, confidence ≥ 1; already scaled by alpha

    Raises ModelError when a stored confidence is below 1 or the factors do not stay finite.
    """
    if not (user_items.data >= 1).all():
        raise ModelError(f"a stored confidence is below 1 (smallest {user_items.data.min()}): build the matrix again")
    start = factors0 or small_random(user_items.shape, settings.factors, settings.seed)
    # OpenBLAS threads beside the solver's own slow it down many times, and their number changes the last bits of a sum
    with threadpool_limits(1, user_api="blas"):
        model = AlternatingLeastSquares(
            factors=settings.factors, regularization=settings.regularization, alpha=1.0, iterations=iterations, use_cg=True
        )
        model.user_factors, model.item_factors = start.user.copy(), start.item.copy()
        try:
            model.fit(user_items, show_progress=False)
        except ModelFitError as error:
            raise ModelError(
                f"the factors did not stay finite in {iterations} sweeps with regularization {settings.regularization}: raise it"
            ) from error
    return Factors(model.user_factors, model.item_factors)

