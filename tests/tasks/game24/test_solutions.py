"""Reading a search on the host: a tree made by hand, with steps of every kind."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.cache import Ledger
from dendrite_jax.search import NO_NODE, ROOT, SearchResult, SearchTree
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.solutions import Results, Snapshot, judge_snapshot
from dendrite_jax.tasks.game24.training.tokenizer_build import build_tokenizer
from dendrite_jax.text import Tokenizer

# Parent and step of the nodes 1, 2, … of one puzzle, 4 5 6 10.
NODES = (
    (ROOT, " 10 - 4 = 6 (left: 5 6 6)"),
    (ROOT, " 10 - 4 = 7 (left: 5 6 7)"),  # wrong
    (1, " 6 * 5 = 30 (left: 6 30)"),
    (2, " 7 - 5 = 2 (left: 2 6)"),  # legal by itself, after a wrong step
    (3, " 30 - 6 = 24 (left: 24)"),
    (3, " 30 + 6 = 36 (left: 36)"),
    (4, " 6 * 4 = 24 (left: 24)"),  # the target by cheating
    (2, " 10 - 6 = 4 (left: 4 4 5)"),  # legal in the beginning, not here
    (NO_NODE, ""),
    (ROOT, " 5 * 4 = 20 (left: 6 10 20)"),
    (10, " 20 - 6 = 14 (left: 10 14)"),
    (11, " 14 + 10 = 24 (left: 24)"),  # right, and merged with node 5 by what it leaves
    (3, " 30 - 6 = 24 (left: 24)"),  # what node 5 says, once more
)
VALUES = {5: -0.1, 12: -0.05, 13: -0.4, 6: -0.2, 7: -0.3}
LEDGER = {"prefilled": 9, "generated": 80}


@pytest.fixture(scope="module")
def results() -> Results:
    tokenizer = Tokenizer(build_tokenizer().to_str())
    return judge_snapshot(snapshot_of(tokenizer), tokenizer.decode)


def snapshot_of(tokenizer: Tokenizer, target: int = 24) -> Snapshot:
    """Two puzzles of the same tree; the second search ended on one answer less."""
    tree = SearchTree.empty(2, 1 + len(NODES), 16)
    parent, tokens, value = (np.array(field) for field in (tree.parent, tree.tokens, tree.value))
    for node, (above, text) in enumerate(NODES, 1):
        ids = tokenizer.encode(text)
        parent[:, node] = above
        tokens[:, node, : len(ids)] = ids
        value[:, node] = VALUES.get(node, -1.0)
    found = SearchResult(
        tree=tree.replace(parent=parent, tokens=tokens, value=value),
        answers=jnp.array([[5, 6, 7], [7, 5, NO_NODE]]),
        values=jnp.array([[-0.1, -0.2, -0.3], [-0.5, -1.0, -np.inf]]),
        tokens=jnp.zeros((2, 3, 0), int),
        length=jnp.zeros((2, 3), int),
        frontier=jnp.full((2, 3), NO_NODE),
        cut=jnp.zeros(2, bool),
        at_capacity=jnp.zeros(2, bool),
        ledger=Ledger.zeros().add(**LEDGER),
        peak_blocks=jnp.int32(0),
    )
    snapshot = Snapshot(puzzles=((4, 5, 6, 10),) * 2, target=target, result=found)
    assert snapshot.title == f"Make {target} from 4 5 6 10"
    return snapshot


def test_answers_are_judged_by_the_whole_path(results: Results) -> None:
    first, second = results.solutions
    assert [answer.solved for answer in first.answers] == [True, False, False]
    assert [answer.solved for answer in second.answers] == [False, True]
    expressions = [answer.expression for answer in first.answers]
    assert expressions == ["(10 - 4) * 5 - 6", "(10 - 4) * 5 + 6", None]
    assert [answer.value for answer in second.answers] == [-0.5, -1.0]
    assert first.answers[0].lines == tuple(NODES[node - 1][1] for node in (1, 3, 5))


def test_right_expressions_are_told_apart_wherever_they_stand(results: Results) -> None:
    """Both searches hold the same tree, so the checker finds the same, whatever they ended on."""
    for solution in results.solutions:
        assert [(answer.node, answer.expression) for answer in solution.right] == [
            (12, "5 * 4 - 6 + 10"),
            (5, "(10 - 4) * 5 - 6"),
        ]
        assert [answer.value for answer in solution.right] == pytest.approx([-0.05, -0.1])
        assert all(answer.solved for answer in solution.right)
        assert solution.judged == ([12, 5], "")


def test_the_checker_does_not_touch_the_models_ranking(results: Results) -> None:
    assert [[answer.node for answer in solution.answers] for solution in results.solutions] == [
        [5, 6, 7],
        [7, 5],
    ]


def test_wrong_ends_are_no_answers_and_are_counted() -> None:
    tokenizer = Tokenizer(build_tokenizer().to_str())
    solution = judge_snapshot(snapshot_of(tokenizer, target=25), tokenizer.decode).solutions[0]
    assert solution.right == ()
    assert solution.judged == ([], "3 paths ended, none of them on 25")
    assert not any(answer.solved for answer in solution.answers)


def test_a_tree_of_tokens_is_judged_by_its_lines() -> None:
    """A beam's own end, past the verdict, stands for the line; without it the line's end does."""
    tokenizer = Tokenizer(build_tokenizer().to_str())
    steps = [NODES[node - 1][1] for node in (1, 3, 5)]
    tokens = tokenizer.encode(" sure\n".join(steps))
    path = [*tokens, vocab.SURE, vocab.EOS]
    tree = SearchTree.empty(1, 1 + len(path), 1)
    tree = tree.replace(
        parent=tree.parent.at[0, 1:].set(jnp.arange(len(path))),
        tokens=tree.tokens.at[0, 1:, 0].set(jnp.array(path)),
        value=-jnp.arange(1.0 + len(path))[None],
    )
    for answer, node in ((len(path), len(path)), (NO_NODE, len(tokens))):
        found = snapshot_of(tokenizer).result.replace(
            tree=tree, answers=jnp.array([[answer]]), values=jnp.array([[-0.5]])
        )
        snapshot = Snapshot(puzzles=((4, 5, 6, 10),), target=24, result=found)
        (solution,) = judge_snapshot(snapshot, tokenizer.decode).solutions
        assert [(right.node, right.expression) for right in solution.right] == [
            (node, "(10 - 4) * 5 - 6")
        ]
        assert solution.right[0].value == -node
        assert (solution.nodes, solution.legal_nodes) == (3, 3)
        assert solution.any_solved == (answer != NO_NODE)


def test_success_counts_the_best_answer_or_any(results: Results) -> None:
    assert [solution.solved for solution in results.solutions] == [True, False]
    assert [solution.any_solved for solution in results.solutions] == [True, True]
    assert results.success_rate == 0.5
    assert results.any_success_rate == 1.0


def test_a_step_after_a_wrong_one_is_not_legal(results: Results) -> None:
    assert [solution.nodes for solution in results.solutions] == [12, 12]
    assert [solution.legal_nodes for solution in results.solutions] == [8, 8]
    assert results.legality == pytest.approx(8 / 12)
    assert {name: results.ledger[name] for name in LEDGER} == LEDGER
