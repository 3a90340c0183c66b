"""Implicit-feedback ALS (Hu, Koren & Volinsky 2008): one function, whatever computes it."""

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
    """Factorise, from `factors0` (warm) or from small seeded numbers (cold). The same input gives the same bytes.

    user_items : csr_matrix, (n_users, n_items), float32, confidence ≥ 1; already scaled by alpha
    factors0 : float32, (n_users, factors) and (n_items, factors); left as they are
    callback : called after every sweep, see `factors.Callback`

    Raises ModelError when a confidence is below 1, the factors do not stay finite, or a GPU is asked for and there is none.
    """
    if not (user_items.data >= 1).all():
        raise ModelError(
            f"a stored confidence is below 1 (smallest {user_items.data.min()}): build the matrix again"
        )
    start = factors0 or small_random(user_items.shape, settings.factors, settings.seed)
    sweeps = {"gpu": gpu.sweeps, "cpu": cpu.sweeps, "implicit": _implicit_sweeps}[solver(settings)]
    too_much = (
        f"the factors did not stay finite (largest confidence {user_items.data.max(initial=0):g}): "
        "lower confidence.alpha or raise training.regularization"
    )
    try:
        factors = sweeps(user_items, start, settings, iterations, callback)
    except np.linalg.LinAlgError as error:
        raise ModelError(too_much) from error
    if not (np.isfinite(factors.user).all() and np.isfinite(factors.item).all()):
        raise ModelError(too_much)
    return factors


def solver(settings: TrainingSettings) -> str:
    """gpu, cpu or implicit: what `settings.solver` comes to on this machine."""
    if settings.solver == "auto":
        return "gpu" if device.find_gpu().name else "cpu"
    return settings.solver


def describe_device(settings: TrainingSettings) -> dict[str, str]:
    """What computes: its kind (gpu or cpu), its name and the solver; of a card its driver's version, CUDA's and CuPy's."""
    chosen = solver(settings)
    if chosen == "gpu":
        found = device.find_gpu()
        return {"kind": "gpu", "name": found.name or "", "solver": chosen, **found.versions}
    return {"kind": "cpu", "name": platform.processor() or platform.machine(), "solver": chosen}


def loss(user_items: sparse.csr_matrix, factors: Factors, settings: TrainingSettings) -> float:
    """What the sweeps make smaller (Hu, Koren & Volinsky 2008, eq. 3): squared errors of all cells by confidence, and L2 terms.

    One pass over the cells on one core. Arguments as in `fit`.
    """
    dense = np.sum(cpu.gram(factors.user) * cpu.gram(factors.item))  # Σ (x·y)² over all cells
    weights = row_regularization(user_items, settings)
    sizes = [
        np.einsum("nf,nf->n", side, side, dtype=np.float64) for side in (factors.user, factors.item)
    ]
    return float(
        dense
        + cpu.cell_errors(user_items, factors)
        + sum(w @ s for w, s in zip(weights, sizes, strict=True))
    )


def _implicit_sweeps(
    user_items: sparse.csr_matrix,
    start: Factors,
    settings: TrainingSettings,
    iterations: int,
    callback: Callback | None = None,
) -> Factors:
    """The solver of the package `implicit`: three steps of conjugate gradients a row, without a preconditioner."""
    # OpenBLAS threads beside the solver's own slow it down many times, and their number changes the last bits of a sum
    with threadpool_limits(1, user_api="blas"):
        from implicit.cpu.als import AlternatingLeastSquares  # takes seconds to import
        from implicit.recommender_base import ModelFitError

        weight = float(
            row_regularization(user_items, settings)[0].max(initial=0)
        )  # the same for all rows
        model = AlternatingLeastSquares(
            factors=settings.factors,
            regularization=weight,
            alpha=1.0,
            iterations=iterations,
            use_cg=True,
        )
        model.user_factors, model.item_factors = start.user.copy(), start.item.copy()

        def sofar() -> Factors:
            return Factors(model.user_factors.copy(), model.item_factors.copy())

        report = callback and (lambda sweep, *_: callback(sweep, sofar))
        with suppress(ModelFitError):  # factors that are not finite: `fit` says so for every solver
            model.fit(user_items, show_progress=False, callback=report)
    return Factors(model.user_factors, model.item_factors)
