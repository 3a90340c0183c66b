"""Top-N against brute force, and what must never be in a list."""

import numpy as np
import pytest
from scipy import sparse

from recsys_ops.als import recommend
from recsys_ops.als.recommend import top_n


def brute_force(users: np.ndarray, items: np.ndarray, n: int, seen: np.ndarray, eligible: np.ndarray) -> list[list[int]]:
    scores = users.astype(float) @ items.T.astype(float)
    order = np.argsort(-scores, axis=1, kind="stable")
    return [[i for i in row if eligible[i] and not seen[u, i]][:n] for u, row in enumerate(order)]


@pytest.mark.parametrize("n", [1, 7, 40, 60])
@pytest.mark.parametrize("values", ["distinct", "tied"])
def test_lists_equal_brute_force(n: int, values: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recommend, "_BLOCK_SCORES", 300)  # several blocks, the last not full
    rng = np.random.default_rng(n)
    draw = rng.standard_normal if values == "distinct" else lambda size: rng.integers(-2, 3, size)
    users, items = (draw((size, 5)).astype(np.float32) for size in (101, 40))
    users[~users.any(axis=1)] = 1
    seen, eligible = rng.random((101, 40)) < 0.3, rng.random(40) < 0.8
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
    ids, _ = top_n(np.ones((2, 2), np.float32), np.ones((3, 2), np.float32), 3, eligible=np.array([True, False, True]))
    assert ids.tolist() == [[0, 2, -1]] * 2


def test_a_user_never_trained_gets_no_list():
    users = np.array([[0, 0], [1, 1]], np.float32)
    ids, _ = top_n(users, np.ones((3, 2), np.float32), 2)
    assert ids.tolist() == [[-1, -1], [0, 1]]


def test_nobody_and_nothing_give_empty_lists():
    assert top_n(np.zeros((0, 2), np.float32), np.ones((3, 2), np.float32), 2)[0].shape == (0, 2)
    nothing, _ = top_n(np.ones((2, 2), np.float32), np.ones((3, 2), np.float32), 2, eligible=np.zeros(3, bool))
    assert nothing.tolist() == [[-1, -1]] * 2
