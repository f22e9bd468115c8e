"""Training rows, read back as text and judged by the exact rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction

import jax
import numpy as np
import pytest

from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.graph import Split, StateGraph
from dendrite_jax.tasks.game24.game.rules import (
    Move,
    State,
    apply_step,
    as_state,
    format_step,
    legal_moves,
    reachable_values,
)
from dendrite_jax.tasks.game24.training.sampling import (
    POLICY,
    VERDICT,
    Mix,
    Rows,
    Tables,
    device_tables,
    sample_json,
    sample_text,
)
from dendrite_jax.tasks.game24.training.tokenizer_build import build_tokenizer

pytestmark = pytest.mark.slow

MIX = Mix(text_target_24=0.5, value_target_24=0.5)
TEXT_ROWS, JSON_ROWS = 1500, 300
PROMPT = re.compile(r"(Make|JSON) (\d+) from ([\d/ ]+)")


Texts = list[list[list[str]]]
"""Lines of each row; of text and value rows first, then of JSON rows."""
VERDICT_TOKENS = ("Ġsure", "Ġimpossible", "sure", "impossible")


@pytest.fixture(scope="module")
def sample(wide: tuple[StateGraph, Split]) -> Callable[[jax.Array], tuple[Rows, Rows]]:
    """Text and value rows, and JSON rows, of a key."""
    tables = device_tables(*wide)

    @jax.jit
    def sample_both(key: jax.Array, tables: Tables) -> tuple[Rows, Rows]:
        return sample_text(key, tables, MIX, TEXT_ROWS), sample_json(key, tables, MIX, JSON_ROWS)

    return lambda key: jax.tree.map(np.asarray, sample_both(key, tables))


@pytest.fixture(scope="module")
def rows(sample: Callable[[jax.Array], tuple[Rows, Rows]]) -> tuple[Rows, Rows]:
    return sample(jax.random.key(7))


@pytest.fixture(scope="module")
def texts(rows: tuple[Rows, Rows]) -> Texts:
    """The finished lines of each row."""
    tokenizer = build_tokenizer()
    return [
        [tokenizer.decode([int(t) for t in row]).split("\n")[:-1] for row in batch.tokens]
        for batch in rows
    ]


def held_out_states(split: Split, graph: StateGraph) -> set[State]:
    """The hold-out by the exact rules: the puzzles and all that one step leaves."""
    puzzles = [graph.state(int(index)) for index in (*split.test, *split.dev)]
    return {*puzzles, *(move.state for puzzle in puzzles for move in legal_moves(puzzle))}


def _policy_text(move: Move) -> str:
    """What a line says before its `=`."""
    return format_step(move).partition(" =")[0]


def test_text_rows_are_legal_with_exact_verdicts(texts: Texts) -> None:
    steps = 0
    for lines in texts[0]:
        match = PROMPT.fullmatch(lines[0])
        if match is None:
            continue
        target, state = int(match[2]), as_state([Fraction(word) for word in match[3].split()])
        for line in lines[1:]:
            after = apply_step(state, line)
            assert after is not None, lines
            state = after
            verdict = "sure" if target in reachable_values(state) else "impossible"
            assert line.endswith(f") {verdict}")
            steps += 1
    assert steps > 1.5 * TEXT_ROWS * (1 - MIX.value_rows)


def test_value_rows_have_exact_verdicts(texts: Texts) -> None:
    verdicts = []
    for opening, *lines in texts[0]:
        target = re.fullmatch(r"Make (\d+)", opening)
        if target is None:
            continue
        for line in lines:
            match = re.fullmatch(r" \(left: ([\d/ ]+)\) (sure|impossible)", line)
            assert match is not None
            state = as_state([Fraction(word) for word in match[1].split()])
            assert (int(target[1]) in reachable_values(state)) == (match[2] == "sure")
            verdicts.append(match[2] == "sure")
    assert len(verdicts) > 5 * TEXT_ROWS * MIX.value_rows
    assert 0.35 < np.mean(verdicts) < 0.6


def test_json_rows_say_the_same_steps(texts: Texts) -> None:
    for lines in texts[1]:
        match = PROMPT.fullmatch(lines[0])
        assert match is not None
        assert match[1] == "JSON"
        target, state = int(match[2]), as_state([Fraction(word) for word in match[3].split()])
        for line in lines[1:]:
            step = json.loads(line)
            left = " ".join(step["left"])
            text = f" {step['a']} {step['op']} {step['b']} = {step['result']} (left: {left})"
            after = apply_step(state, text)
            assert after is not None, line
            state = after
            verdict = "sure" if target in reachable_values(state) else "impossible"
            assert step["value"] == verdict


def test_no_held_out_state_is_ever_printed(texts: Texts, split: Split, graph: StateGraph) -> None:
    held_out = held_out_states(split, graph)
    seen: set[State] = set()
    for lines in texts[0]:
        for line in lines:
            for part in re.findall(r"(?:from|left:)((?: \d+(?:/\d+)?)+)", line):
                seen.add(as_state([Fraction(word) for word in part.split()]))
    for lines in texts[1]:
        numbers = lines[0].partition(" from ")[2].split()
        seen.add(as_state([Fraction(word) for word in numbers]))
        seen |= {as_state([Fraction(n) for n in json.loads(line)["left"]]) for line in lines[1:]}
    assert len(seen) > 5000
    assert not seen & held_out


def test_moves_into_held_out_states_are_taught_without_the_state(
    rows: tuple[Rows, Rows], split: Split, graph: StateGraph
) -> None:
    held_out = held_out_states(split, graph)
    tokenizer = build_tokenizer()
    cut = 0
    for row in rows[0].tokens:
        *lines, last = tokenizer.decode([int(token) for token in row]).split("\n")
        if not last:
            continue
        opening = PROMPT.fullmatch(lines[0])
        assert opening is not None
        assert len(lines) == 1, "only a first step can enter a held-out state"
        state = as_state([Fraction(word) for word in opening[3].split()])
        entered = {move.state for move in legal_moves(state) if _policy_text(move) == last}
        assert len(entered) == 1, last
        assert entered <= held_out
        cut += 1
    assert cut > 20


def test_whole_training_pool_is_free_of_held_out_states(
    wide: tuple[StateGraph, Split], split: Split, graph: StateGraph
) -> None:
    held_out = held_out_states(split, graph)
    tables = device_tables(*wide)
    pool = np.concatenate([tables.puzzles, tables.threes, tables.wide])
    assert not {wide[0].state(index) for index in pool} & held_out


def test_rows_carry_the_tokenizers_ids_and_kinds(rows: tuple[Rows, Rows], texts: Texts) -> None:
    tokenizer = build_tokenizer()
    for batch, lines_of in zip(rows, texts, strict=True):
        for tokens, kind, lines in zip(batch.tokens, batch.kind, lines_of, strict=True):
            ids = tokenizer.encode("".join(f"{line}\n" for line in lines)).ids
            assert tokens[0] == vocab.BOS
            assert tokens[1 : 1 + len(ids)].tolist() == ids
            words = [tokenizer.id_to_token(token) for token in tokens]
            assert (kind == VERDICT).tolist() == [word in VERDICT_TOKENS for word in words]
            assert not (kind[tokens == vocab.PAD] >= POLICY).any()


def test_same_key_same_rows(
    sample: Callable[[jax.Array], tuple[Rows, Rows]], rows: tuple[Rows, Rows]
) -> None:
    again, other = sample(jax.random.key(7)), sample(jax.random.key(8))
    for batch, same, different in zip(rows, again, other, strict=True):
        assert (batch.tokens == same.tokens).all()
        assert not (batch.tokens == different.tokens).all()
