"""Searches whose outcome is known: a model that writes given lines and knows their value."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest

from dendrite_jax.search import NO_NODE, path_tokens
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.rules import (
    Move,
    PuzzleError,
    State,
    apply_step,
    as_state,
    format_prompt,
    format_step,
    legal_moves,
    reachable_values,
)
from dendrite_jax.tasks.game24.solutions import Results, Snapshot
from dendrite_jax.tasks.game24.solve import (
    Game24Search,
    cache_config,
    load_solver,
)
from dendrite_jax.tasks.game24.training.checkpoint import save_checkpoint
from dendrite_jax.tasks.game24.training.network import init_params
from dendrite_jax.tasks.game24.training.recipe import llama_config
from dendrite_jax.tasks.game24.training.tokenizer_build import build_tokenizer
from dendrite_jax.text import Tokenizer
from tasks.game24.trie_model import TrieModel, build_trie

pytestmark = pytest.mark.slow

PUZZLES = ((4, 5, 6, 10), (1, 2, 4, 7), (1, 1, 1, 1))  # the last one has no solution
BREADTH, PROPOSALS = 3, 48
CERTAIN = 3.0


def offered_moves(generator: random.Random, state: State) -> list[tuple[Move, bool]]:
    """Some moves with the verdict on each: one that leads to 24 if there is one, and a wrong one.

    The wrong one has the surest verdict of all: only the rules keep a search from following it.
    """
    moves = legal_moves(state)
    generator.shuffle(moves)
    good = [move for move in moves if 24 in reachable_values(move.state)]
    offered = {move: move in good for move in [*good[:1], *moves[:2]]}
    move = moves[-1]
    left = list(move.state)
    left.remove(move.result)
    wrong = move.result + 1
    illegal = move._replace(result=wrong, state=tuple(sorted([*left, wrong])))
    return [*offered.items(), (illegal, True)]


def write_model(tokenizer: Tokenizer) -> TrieModel:
    """A model for PUZZLES and the moves that are offered from each of their states."""
    generator = random.Random(1)
    texts: list[list[int]] = []
    verdicts: dict[tuple[int, ...], dict[int, float]] = {}

    def write(path: list[int], state: State) -> None:
        if len(state) == 1:
            texts.append(path)
            return
        for move, sure in offered_moves(generator, state):
            step = path + tokenizer.encode(format_step(move))
            logit = CERTAIN if sure else -CERTAIN
            if apply_step(state, format_step(move)) is None:
                logit *= 2
            verdicts[tuple(step)] = {vocab.SURE: logit, vocab.IMPOSSIBLE: -logit}
            write([*step, vocab.SURE, vocab.NEWLINE], move.state)

    for puzzle in map(as_state, PUZZLES):
        write([vocab.BOS, *tokenizer.encode(format_prompt(puzzle, 24))], puzzle)
    return build_trie(texts, verdicts, vocab.VOCABULARY_SIZE)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(build_tokenizer().to_str())


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> TrieModel:
    return write_model(tokenizer)


@pytest.fixture(scope="module")
def search(model: TrieModel, tokenizer: Tokenizer) -> Game24Search:
    return Game24Search(model, tokenizer, sizes={"breadth": BREADTH, "proposals": PROPOSALS})


@pytest.fixture(scope="module")
def snapshots(search: Game24Search) -> list[Snapshot]:
    snapshots: list[Snapshot] = []
    search.search(PUZZLES, watch=snapshots.append)
    return snapshots


@pytest.fixture(scope="module")
def results(search: Game24Search, snapshots: list[Snapshot]) -> Results:
    return search.judge(snapshots[-1])


def test_what_can_be_solved_is_solved_and_shown_as_an_expression(results: Results) -> None:
    assert [solution.solved for solution in results.solutions] == [True, True, False]
    assert [solution.any_solved for solution in results.solutions] == [True, True, False]
    assert results.success_rate == results.any_success_rate == pytest.approx(2 / 3)
    for puzzle, solution in zip(PUZZLES, results.solutions, strict=True):
        assert solution.puzzle == puzzle
        assert solution.target == 24
        for answer in solution.answers:
            assert answer.expression is not None
            numbers = [int(number) for number in re.findall(r"\d+", answer.expression)]
            assert tuple(sorted(numbers)) == puzzle
            exact = re.sub(r"\d+", r"Fraction(\g<0>)", answer.expression)
            assert (eval(exact, {"Fraction": Fraction}) == 24) == answer.solved


def test_values_are_the_models_and_the_best_come_first(results: Results) -> None:
    sure, impossible = np.log([1 / (1 + np.exp(-2 * CERTAIN)), 1 / (1 + np.exp(2 * CERTAIN))])
    for solution in results.solutions:
        values = [answer.value for answer in solution.answers]
        assert values == sorted(values, reverse=True)
        for answer in solution.answers:
            expected = sure if answer.solved else impossible
            assert answer.value == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_rules_on_the_device_and_on_the_host_agree(
    snapshots: list[Snapshot], results: Results
) -> None:
    tree = snapshots[-1].result.tree
    sampled = tree.parent != NO_NODE
    valued = np.isfinite(tree.value) & sampled
    assert [s.nodes for s in results.solutions] == sampled.sum(axis=1).tolist()
    assert [s.legal_nodes for s in results.solutions] == valued.sum(axis=1).tolist()
    assert 0.5 < results.legality == valued.sum() / sampled.sum() < 1


def test_kept_steps_are_legal_and_leave_different_numbers(
    search: Game24Search, snapshots: list[Snapshot]
) -> None:
    for depth, snapshot in enumerate(snapshots[:-1], 1):
        for problem, puzzle in enumerate(PUZZLES):
            states = []
            for node in snapshot.result.frontier[problem][
                snapshot.result.frontier[problem] != NO_NODE
            ]:
                state: State | None = as_state(puzzle)
                for tokens in path_tokens(snapshot.result.tree, problem, int(node)):
                    assert state is not None
                    state = apply_step(state, search.tokenizer.decode(tokens))
                states.append(state)
            assert None not in states
            assert len(set(states)) == len(states) > 0
            assert all(len(state) == 4 - depth for state in states if state is not None)
    assert (snapshots[-1].result.frontier == NO_NODE).all()


def test_levels_only_add_to_the_tree(snapshots: list[Snapshot]) -> None:
    assert len(snapshots) == 3
    trees = [snapshot.result.tree for snapshot in snapshots]
    for level, (before, after) in enumerate(pairwise(trees), 1):
        known = 1 + level * PROPOSALS
        assert (before.parent[:, known:] == NO_NODE).all()
        assert (after.depth[:, known : known + PROPOSALS] == level + 1).all()
        for field in ("parent", "tokens", "value"):
            old, new = (getattr(tree, field)[:, :known] for tree in (before, after))
            np.testing.assert_array_equal(old, new)


def test_ledger_counts_the_work(snapshots: list[Snapshot]) -> None:
    committed = 0
    for snapshot in snapshots:
        generated = int((snapshot.result.tree.tokens >= 0).sum())
        nodes = int((snapshot.result.tree.parent != NO_NODE).sum())
        ledger = snapshot.result.ledger.totals()
        assert ledger["prefilled"] == 2 * committed
        assert ledger["generated"] == generated
        assert ledger["forks"] == nodes + len(PUZZLES)
        committed += int((snapshot.result.frontier != NO_NODE).sum())


def test_one_call_gives_what_the_levels_give(search: Game24Search, results: Results) -> None:
    assert search.solve_batch(PUZZLES) == results


def test_order_of_the_numbers_does_not_matter_and_seeds_repeat(
    search: Game24Search, results: Results
) -> None:
    turned = [puzzle[::-1] for puzzle in PUZZLES]
    assert search.solve(turned) == results
    other = search.solve(PUZZLES, seed=1)
    assert other.ledger != results.ledger
    assert [solution.solved for solution in other.solutions] == [True, True, False]


def test_another_target_is_asked_for_and_judged(search: Game24Search) -> None:
    """The model was written for 24 only: no line of it can be legal from another prompt."""
    solution = search.solve(PUZZLES, target=10).solutions[0]
    assert solution.target == 10
    assert not solution.answers
    assert solution.legal_nodes == 0


@pytest.mark.parametrize(
    ("puzzles", "target", "message"),
    [
        ([], 24, "puzzles: none given"),
        ([(4, 5, 6)], 24, "3 numbers given, 4 needed"),
        ([(4, 5, 6, 10), (4, 5, 6, 14)], 24, "14 is not between 1 and 13"),
        ([(4, 5, 6, 10)], 0, "target: 0 is not between 1 and 100"),
    ],
)
def test_bad_puzzles_are_refused(
    search: Game24Search, puzzles: list[tuple[int, ...]], target: int, message: str
) -> None:
    for solve in (search.search, search.solve, search.solve_batch):
        with pytest.raises(PuzzleError, match=message):
            solve(puzzles, target)


def test_cache_has_room_for_the_longest_lines(search: Game24Search) -> None:
    """Fractions everywhere: 9 tokens, then lines of 16, 14 and 12 with two more between them."""
    config = cache_config(search.method, num_puzzles=2)
    assert config.max_context >= 9 + 18 + 16 + 12
    assert config.max_blocks == 4
    assert config.num_slots == 2 * (1 + BREADTH + PROPOSALS)
    # The root, four blocks a kept step, and a copied and a new block a sampled one.
    assert config.num_blocks == 2 * (1 + 4 * BREADTH + 2 * PROPOSALS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    shape = llama_config(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64)
    save_checkpoint(folder, init_params(jax.random.key(0), shape), shape, {})
    return folder


def test_a_checkpoint_runs_in_float32_on_a_cpu(checkpoint: Path) -> None:
    model, tokenizer = load_solver(checkpoint)
    assert model.dtype == np.float32
    results = Game24Search(model, tokenizer, sizes={"breadth": 2, "proposals": 8}).solve(
        PUZZLES[:1]
    )
    # An untrained model writes no legal line, so the first level is the last.
    assert [len(solution.answers) for solution in results.solutions] == [0]
    assert results.ledger["forks"] == 1 + 8
    assert results.legality == results.success_rate == 0.0


def test_the_embedded_model_is_the_default() -> None:
    model, tokenizer = load_solver()
    assert model.dtype == np.float32
    assert model.vocab_size == tokenizer.vocab_size == vocab.VOCABULARY_SIZE
    context = cache_config(Game24Search(model, tokenizer).method, num_puzzles=1).max_context
    assert model.config.max_position >= context


def test_a_model_of_another_vocabulary_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    definition = (checkpoint / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(definition.replace("Ġsure", "Ġsurely"))
    with pytest.raises(ValueError, match=r"the tokenizer makes \[.*\] of ' sure'.* makes \[267\]"):
        load_solver(tmp_path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        load_solver(tmp_path / "nowhere")
