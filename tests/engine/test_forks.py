"""What a fork inherits, and the randomness of its own that it gets."""

from __future__ import annotations

import jax
import numpy as np

from dendrite_jax.engine import State
from engine.programs import (
    CACHE,
    LANES,
    bigram,
    branch_tokens,
    fork,
    free,
    keys,
    open_branches,
    pad,
    set_keys,
    start,
)

MODEL = bigram()


def branch_keys(state: State, ids: np.ndarray | jax.Array) -> list[tuple[int, ...]]:
    return [tuple(words) for words in state.key[np.asarray(ids)].tolist()]


def test_children_inherit_the_last_hidden_state() -> None:
    state, ids = start(MODEL, [[3], [4, 5]])
    state, children = fork(state, pad([ids[1], ids[0], ids[1]]))
    assert children[3] == -1
    np.testing.assert_array_equal(state.hidden[children[:3]], MODEL.table[np.array([5, 3, 5])])


def test_every_branch_of_a_tree_has_a_key_of_its_own() -> None:
    state, ids = start(MODEL, [[1]])
    seen = branch_keys(state, ids)
    for parents in ([ids[0]] * 4, [ids[0], ids[1], ids[0], ids[1]]):
        state, children = fork(state, pad(parents))
        seen += branch_keys(state, children)
        state, grandchildren = fork(state, children)
        seen += branch_keys(state, grandchildren)
        state = free(free(state, children), grandchildren)
    assert len(set(seen)) == len(seen) == 4 + 16


def test_a_childs_key_hangs_on_its_parents_key_and_its_number_only() -> None:
    state, ids = start(MODEL, [[1], [2]])
    together, children = fork(state, pad([ids[0], ids[1], ids[0], ids[1]]))
    of_first = branch_keys(together, children)[::2]

    state, ids = start(MODEL, [[1], [2]])
    one_by_one = []
    for _ in range(2):
        state, children = fork(state, pad([-1, -1, ids[0]]))
        one_by_one += branch_keys(state, children[2:3])
        state = free(state, children)
    assert one_by_one == of_first


def test_refused_children_use_up_no_number() -> None:
    state, ids = start(MODEL, [[1]])
    for _ in range(2):
        state, _ = fork(state, pad([ids[0]] * 4))
    assert int(state.children[ids[0]]) == 8
    state, refused = fork(state, pad([ids[0]] * 4))
    assert refused.tolist() == [-1] * 4
    assert int(state.children[ids[0]]) == 8


def test_a_reused_slot_counts_its_children_from_nothing() -> None:
    state, ids = start(MODEL, [[1]])
    state, children = fork(state, pad([ids[0]]))
    first_child = branch_keys(state, children[:1])
    state = free(state, np.concatenate([ids[:1], children[:1], [-1, -1]]))
    state, again = open_branches(state, keys())
    reopened = branch_keys(state, again).index(branch_keys(state, ids[:1])[0])
    state, children = fork(state, pad([again[reopened]]))
    assert branch_keys(state, children[:1]) == first_child


def test_set_keys_gives_the_given_keys_and_skips_idle_lanes() -> None:
    state, ids = start(MODEL, [[1]])
    old = branch_keys(state, ids)
    new = jax.random.split(jax.random.key(99), LANES)
    state = set_keys(state, pad([ids[2], -1, ids[0]]), new)
    words = [tuple(row) for row in jax.random.key_data(new).tolist()]
    assert branch_keys(state, ids) == [words[2], old[1], words[0], old[3]]


def test_the_tokens_of_branches_are_those_they_hold() -> None:
    state, ids = start(MODEL, [[1, 2, 3, 4, 5], [], [7]])
    tokens, length = branch_tokens(state, pad([ids[2], -1, ids[0], ids[1]]))
    assert length.tolist() == [1, 0, 5, 0]
    assert tokens.shape == (LANES, CACHE.max_context)
    assert tokens[0, 0] == 7
    assert tokens[2, :5].tolist() == [1, 2, 3, 4, 5]
