"""Top-n against brute force, and what must never be in a list."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recsys_ops.als import top_n as top_n_module
from recsys_ops.als.top_n import top_n
from recsys_ops.jit import jit


def brute_force(
    users: np.ndarray, items: np.ndarray, n: int, seen: np.ndarray, eligible: np.ndarray
) -> list[list[int]]:
    scores = users.astype(float) @ items.T.astype(float)
    order = np.argsort(-scores, axis=1, kind="stable")
    return [[i for i in row if eligible[i] and not seen[u, i]][:n] for u, row in enumerate(order)]


@pytest.mark.parametrize("n", [1, 7, 150, 170])
@pytest.mark.parametrize("values", ["distinct", "tied"])
def test_lists_equal_brute_force(n: int, values: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(top_n_module, "_USERS", 16)  # several blocks and tiles, the last not full
    monkeypatch.setattr(top_n_module, "_ITEMS", 64)
    rng = np.random.default_rng(n)
    draw = rng.standard_normal if values == "distinct" else lambda size: rng.integers(-2, 3, size)
    users, items = (draw((size, 5)).astype(np.float32) for size in (101, 150))
    users[~users.any(axis=1)] = 1
    seen, eligible = rng.random((101, 150)) < 0.3, rng.random(150) < 0.8
    ids, scores = top_n(users, items, n, seen=sparse.csr_matrix(seen), eligible=eligible)
    assert ids.shape == scores.shape == (101, n)
    assert (ids.dtype, scores.dtype) == (np.int32, np.float32)
    assert [row[row >= 0].tolist() for row in ids] == brute_force(users, items, n, seen, eligible)
    assert ((ids == -1) == (scores == -np.inf)).all()
    expected = np.einsum("uf,unf->un", users, items[ids])
    np.testing.assert_allclose(scores[ids >= 0], expected[ids >= 0], rtol=1e-4, atol=1e-5)


def test_a_seen_item_is_never_recommended_even_where_confidence_is_small():
    seen = sparse.csr_matrix(np.array([[0, 1e-6, 0]], dtype=np.float32))
    ids, _ = top_n(np.ones((1, 2), np.float32), np.ones((3, 2), np.float32), 3, seen=seen)
    assert ids.tolist() == [[0, 2, -1]]


def test_an_ineligible_item_is_never_recommended():
    ids, _ = top_n(
        np.ones((2, 2), np.float32),
        np.ones((3, 2), np.float32),
        3,
        eligible=np.array([True, False, True]),
    )
    assert ids.tolist() == [[0, 2, -1]] * 2


def test_a_user_never_trained_gets_no_list():
    users = np.array([[0, 0], [1, 1]], np.float32)
    ids, _ = top_n(users, np.ones((3, 2), np.float32), 2)
    assert ids.tolist() == [[-1, -1], [0, 1]]


def test_no_users_and_no_eligible_items_give_empty_lists():
    assert top_n(np.zeros((0, 2), np.float32), np.ones((3, 2), np.float32), 2)[0].shape == (0, 2)
    nothing, _ = top_n(
        np.ones((2, 2), np.float32), np.ones((3, 2), np.float32), 2, eligible=np.zeros(3, bool)
    )
    assert nothing.tolist() == [[-1, -1]] * 2


@given(
    seed=st.integers(0, 2**32),
    n_users=st.integers(1, 40),
    n_items=st.integers(1, 300),
    factors=st.integers(1, 9),
    n=st.integers(1, 30),
    skew=st.floats(0, 3),
    seen_share=st.sampled_from([0, 0.2, 0.99, 1]),
    eligible_share=st.sampled_from([0.05, 0.7, 1]),
)
def test_equal_scores_are_listed_by_item_index(
    seed, n_users, n_items, factors, n, skew, seen_share, eligible_share
):
    rng = np.random.default_rng(seed)
    users = rng.integers(-3, 4, (n_users, factors)).astype(np.float32)
    users[:, 0] += ~users.any(axis=1)
    items = rng.integers(-3, 4, (n_items, factors)) * np.ceil(
        (np.arange(n_items)[:, None] + 1.0) ** -skew * 20
    )
    items = items[rng.permutation(n_items)].astype(np.float32)
    seen, eligible = (
        rng.random((n_users, n_items)) < seen_share,
        rng.random(n_items) < eligible_share,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_n_module, "_USERS", 16)
        patch.setattr(top_n_module, "_ITEMS", 64)
        ids, _ = top_n(users, items, n, seen=sparse.csr_matrix(seen), eligible=eligible)
    assert [row[row >= 0].tolist() for row in ids] == brute_force(users, items, n, seen, eligible)


def assert_best(
    users: np.ndarray, items: np.ndarray, n: int, seen: np.ndarray | None = None
) -> None:
    """The listed scores are the largest, up to the rounding of float32."""
    ids, _ = top_n(users, items, n, seen=None if seen is None else sparse.csr_matrix(seen))
    exact = users.astype(float) @ items.T.astype(float)
    if seen is not None:
        exact[seen] = -np.inf
    rounding = 1e-5 * np.linalg.norm(users, axis=1).max() * np.linalg.norm(items, axis=1).max()
    np.testing.assert_allclose(
        np.take_along_axis(exact, ids.astype(int), axis=1), -np.sort(-exact)[:, :n], atol=rounding
    )
    assert all(len(set(row)) == n for row in ids.tolist())


@pytest.mark.parametrize("factors", [1, 64, 130])
def test_items_of_nearly_equal_norm(factors: int):
    rng = np.random.default_rng(factors)
    users, items = (rng.standard_normal((size, factors)).astype(np.float32) for size in (700, 3000))
    items *= (
        (1 + 1e-6 * rng.random((3000, 1))) / np.linalg.norm(items, axis=1, keepdims=True)
    ).astype(np.float32)
    assert_best(users, items, 20)


def test_one_giant_item_that_everybody_has_seen():
    rng = np.random.default_rng(0)
    users, items = (rng.random((size, 16)).astype(np.float32) for size in (700, 3000))
    items[1234] *= 1e4
    seen = np.zeros((700, 3000), bool)
    seen[:, 1234] = True
    ids, _ = top_n(users, items, 20, seen=sparse.csr_matrix(seen))
    assert not (ids == 1234).any()
    items[1234] = 0  # of no weight in the allowed rounding
    assert_best(users, items, 20, seen)


def test_scores_that_are_all_negative():
    rng = np.random.default_rng(0)
    assert_best(-rng.random((100, 8), np.float32), rng.random((3000, 8), np.float32), 20)


def test_a_user_who_has_seen_nearly_everything_gets_the_rest():
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((size, 8)).astype(np.float32) for size in (3, 5000))
    seen = np.ones((3, 5000), bool)
    seen[1, [17, 4999]] = False
    ids, scores = top_n(users, items, 4, seen=sparse.csr_matrix(seen))
    assert sorted(ids[1].tolist()) == [-1, -1, 17, 4999]
    assert (ids[[0, 2]] == -1).all() and (scores[[0, 2]] == -np.inf).all()


def test_items_without_factors_tie_at_zero():
    ids, scores = top_n(np.ones((2, 3), np.float32), np.zeros((3000, 3), np.float32), 3)
    assert ids.tolist() == [[0, 1, 2]] * 2
    assert (scores == 0).all()


def test_scores_that_are_no_numbers_are_never_listed():
    users = np.array([[1, 1], [np.nan, 1], [np.inf, 1], [1, 2]], np.float32)
    items = np.array([[1, 1], [np.nan, 1], [2, 2], [1, -np.inf]], np.float32)
    ids, _ = top_n(users, items, 3)
    assert ids.tolist() == [[2, 0, -1], [-1, -1, -1], [0, 2, -1], [2, 0, -1]]


def test_the_same_bytes_from_any_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((size, 24)).astype(np.float32) for size in (2000, 3000))
    items *= rng.pareto(1, (3000, 1)).astype(np.float32)
    results = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        ids, scores = top_n(users, items, 20)
        results.add(ids.tobytes() + scores.tobytes())
    assert len(results) == 1


def test_machine_code_works_without_a_folder_for_its_cache():
    # a function without a file has no folder for the cache
    without_file = eval("lambda number: number + 1")
    assert jit()(without_file)(1) == 2
