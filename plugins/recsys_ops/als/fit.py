"""Implicit-feedback ALS (Hu, Koren & Volinsky 2008): one function for all solvers."""

import platform
from contextlib import suppress

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from recsys_ops.als import cpu, device, gpu
from recsys_ops.als.factors import Callback, Factors, row_regularization, small_random
from recsys_ops.errors import ModelError
from recsys_ops.settings import TrainingSettings


def fit(
    user_items: sparse.csr_matrix,
    settings: TrainingSettings,
    *,
    iterations: int,
    factors0: Factors | None = None,
    callback: Callback | None = None,
) -> Factors:
    """Factorise, from `factors0` (warm start) or from small seeded numbers (cold start).

    The same input gives the same bytes.

    user_items : csr_matrix, float32, (n_users, n_items), confidence ≥ 1; already scaled by alpha
    iterations : the number of sweeps
    factors0 : float32, (n_users, factors) and (n_items, factors); not changed
    callback : called after every sweep, see `factors.Callback`

    Raises ModelError when a confidence is below 1, when the factors do not stay finite, and when
    the settings ask for a GPU and there is none.
    """
    if not (user_items.data >= 1).all():
        raise ModelError(
            f"a stored confidence is below 1 (smallest {user_items.data.min()}): "
            "build the matrix again"
        )
    start = factors0 or small_random(user_items.shape, settings.factors, settings.seed)
    sweeps = {"gpu": gpu.sweeps, "cpu": cpu.sweeps, "implicit": _implicit_sweeps}[solver(settings)]
    overflow = (
        f"the factors did not stay finite (largest confidence {user_items.data.max(initial=0):g}): "
        "lower confidence.alpha or raise training.regularization"
    )
    try:
        factors = sweeps(user_items, start, settings, iterations, callback)
    except np.linalg.LinAlgError as error:
        raise ModelError(overflow) from error
    if not (np.isfinite(factors.user).all() and np.isfinite(factors.item).all()):
        raise ModelError(overflow)
    return factors


def solver(settings: TrainingSettings) -> str:
    """gpu, cpu or implicit: the solver that `settings.solver` means on this machine."""
    if settings.solver == "auto":
        return "gpu" if device.find_gpu().name else "cpu"
    return settings.solver


def describe_device(settings: TrainingSettings) -> dict[str, str]:
    """The device that computes: its kind (gpu or cpu), its name and the solver.

    With a GPU also the versions of its driver, CUDA and CuPy.
    """
    chosen = solver(settings)
    if chosen == "gpu":
        gpu_found = device.find_gpu()
        return {"kind": "gpu", "name": gpu_found.name or "", "solver": chosen, **gpu_found.versions}
    return {"kind": "cpu", "name": platform.processor() or platform.machine(), "solver": chosen}


def loss(user_items: sparse.csr_matrix, factors: Factors, settings: TrainingSettings) -> float:
    """The value that the sweeps minimise (Hu, Koren & Volinsky 2008, eq. 3).

    It is the sum of all cells' squared errors, weighted by confidence, and of the L2 terms. Costs
    one pass over the stored cells on one core. Arguments as in `fit`.
    """
    all_cells = np.sum(  # Σ (x·y)²
        cpu.gram_float32_blocks(factors.user) * cpu.gram_float32_blocks(factors.item)
    )
    weights = row_regularization(user_items, settings)
    squared_norms = [
        np.einsum("nf,nf->n", side, side, dtype=np.float64) for side in (factors.user, factors.item)
    ]
    penalty = sum(
        side_weights @ side_norms
        for side_weights, side_norms in zip(weights, squared_norms, strict=True)
    )
    return float(all_cells + cpu.cell_errors(user_items, factors) + penalty)


def _implicit_sweeps(
    user_items: sparse.csr_matrix,
    start: Factors,
    settings: TrainingSettings,
    iterations: int,
    callback: Callback | None = None,
) -> Factors:
    """The sweeps of the package `implicit`.

    It takes three steps of conjugate gradients for each row, without a preconditioner.
    """
    # BLAS threads beside the solver's make it many times slower, and their number changes the last
    # bits of a sum
    with threadpool_limits(1, user_api="blas"):
        from implicit.cpu.als import AlternatingLeastSquares  # takes seconds to import
        from implicit.recommender_base import ModelFitError

        # settings allow this solver only with the same weight for all rows
        weight = float(row_regularization(user_items, settings)[0].max(initial=0))
        model = AlternatingLeastSquares(
            factors=settings.factors,
            regularization=weight,
            alpha=1.0,
            iterations=iterations,
            use_cg=True,
        )
        model.user_factors, model.item_factors = start.user.copy(), start.item.copy()

        def copy_factors() -> Factors:
            return Factors(model.user_factors.copy(), model.item_factors.copy())

        report = callback and (lambda sweep, *_: callback(sweep, copy_factors))
        with suppress(ModelFitError):  # factors that are not finite: `fit` checks every solver's
            model.fit(user_items, show_progress=False, callback=report)
    return Factors(model.user_factors, model.item_factors)
