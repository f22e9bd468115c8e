"""Training rows made on the device: from the state graph to padded token arrays, all in jit.

Three kinds of rows, of one target T each:

- *text*: `Make 24 from 4 5 6 10\n 10 - 6 = 4 (left: 4 4 5) sure\n …`, a random way down the graph,
  from a puzzle or a 3-number state, half of it along moves that can still reach T;
- *values*: `Make 24\n (left: 3 5 9) sure\n (left: 1 1 7) impossible\n …`, the value of unrelated
  3-number states, in the same words, six to a row;
- *JSON*: the text rows' way in the JSON form, opened by `JSON` in place of `Make`.

A step that would enter a held-out state teaches only that it is a move: the row ends before the
state is printed, and such a step is never preferred for keeping the target in reach. Without these
the policy would learn to shun the very moves that test puzzles are made of.

A row is first laid out in slots, some of them empty (a whole number needs one token where a
fraction needs two), then packed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.graph import STATE_WIDTH, Split, StateGraph
from dendrite_jax.tasks.game24.game.rules import MAX_TARGET, OPERATORS
from dendrite_jax.tasks.game24.game.values import NO_VALUE, value_table

TEXT_LENGTH = 56
JSON_LENGTH = 88
EMPTY = -1
UNTRAINED, POLICY, ARITHMETIC, VERDICT = -1, 0, 1, 2
"""What a token teaches: the choice of a move, its consequence, the value of the state."""

_VALUES_PER_ROW = 6
_STEPS = STATE_WIDTH - 1
_MOST_MOVES = 30  # of a state of four numbers: six pairs, five ways each
_TRIES = 64
_OPEN_A, _TO_OPERATOR, _TO_B, _TO_RESULT, _TO_LEFT, _COMMA, _TO_VALUE, _CLOSE = map(
    vocab.token_id, vocab.JSON_PIECES
)


class Mix(NamedTuple):
    """Shares of what the rows are made of, all between 0 and 1."""

    value_rows: float = 0.4  # of the text-length rows
    text_target_24: float = 0.3  # of the text and JSON rows; the others' targets are 1…100
    value_target_24: float = 0.3  # of the value rows
    from_three: float = 0.15  # text rows that start at a 3-number state
    solvable: float = 0.85  # rows whose start can reach its target
    follow: float = 0.5  # steps taken among the moves known to keep the target reachable
    wide: float = 0.5  # value-row states drawn from the added ones


class Tables(NamedTuple):
    """The graph and the training states on the device."""

    numbers: jax.Array  # i32[states, 4]
    reach: jax.Array  # u8[states, bytes]
    held_out: jax.Array  # bool[states]
    first_move: jax.Array  # i32[states + 1]
    moves: jax.Array  # i32[moves, 4]: a, operator, b, result
    next_state: jax.Array  # i32[moves]
    puzzles: jax.Array  # i32[n]: 4-number states to start from
    threes: jax.Array  # i32[n]: 3-number states of the game
    wide: jax.Array  # i32[n]: added 3-number states (the game's own if none were added)
    text_number: jax.Array  # i32[values + 1, 2]: the last row, all EMPTY, is the one of NO_VALUE
    json_number: jax.Array  # i32[values + 1, 4]


class Rows(NamedTuple):
    """A batch of packed rows."""

    tokens: jax.Array  # i32[rows, length], PAD behind the end
    kind: jax.Array  # i32[rows, length], UNTRAINED for prompts and padding


def device_tables(graph: StateGraph, split: Split) -> Tables:
    """Puts a graph and its training states on the device."""
    in_game = np.arange(len(graph.size)) < _game_states(graph)
    threes = (graph.size == 3) & ~split.held_out
    wide = np.flatnonzero(threes & ~in_game)
    moves = np.column_stack([graph.operand_a, graph.operator, graph.operand_b, graph.result])
    return Tables(
        numbers=jnp.asarray(graph.numbers, jnp.int32),
        reach=jnp.asarray(graph.reach),
        held_out=jnp.asarray(split.held_out),
        first_move=jnp.asarray(graph.first_move),
        moves=jnp.asarray(moves, jnp.int32),
        next_state=jnp.asarray(graph.next_state),
        puzzles=jnp.asarray(split.train, jnp.int32),
        threes=jnp.asarray(np.flatnonzero(threes & in_game), jnp.int32),
        wide=jnp.asarray(wide if len(wide) else np.flatnonzero(threes), jnp.int32),
        text_number=jnp.asarray(_text_numbers()),
        json_number=jnp.asarray(_json_numbers()),
    )


def sample_text(key: jax.Array, tables: Tables, mix: Mix, rows: int) -> Rows:
    """Text rows and, behind them, value rows, [rows, TEXT_LENGTH]."""
    value_rows = int(rows * mix.value_rows)
    text_key, value_key = jax.random.split(key)
    text = _walk(text_key, tables, mix, rows - value_rows, json=False)
    values = _value_rows(value_key, tables, mix, value_rows)
    return Rows(*(jnp.concatenate(pair) for pair in zip(text, values, strict=True)))


def sample_json(key: jax.Array, tables: Tables, mix: Mix, rows: int) -> Rows:
    """JSON rows, [rows, JSON_LENGTH]."""
    return _walk(key, tables, mix, rows, json=True)


def can_reach(tables: Tables, states: jax.Array, target: jax.Array) -> jax.Array:
    """bool, of the broadcast shape: whether a state can be turned into a target."""
    byte = tables.reach[states, target >> 3]
    return (byte >> (target & 7).astype(jnp.uint8)) & 1 == 1


def _walk(key: jax.Array, tables: Tables, mix: Mix, rows: int, *, json: bool) -> Rows:
    """Rows that open with a state and take random steps to its end."""
    target_key, pool_key, start_key, want_key, *step_keys = jax.random.split(key, 4 + _STEPS)
    target = _targets(target_key, mix.text_target_24, rows)
    want = jax.random.bernoulli(want_key, mix.solvable, (rows,))
    three_key, four_key = jax.random.split(start_key)
    state = jnp.where(
        jax.random.bernoulli(pool_key, mix.from_three, (rows,)),
        _draw(three_key, tables, tables.threes, target, want),
        _draw(four_key, tables, tables.puzzles, target, want),
    )
    line = _json_line if json else _text_line
    pieces = [_prompt(tables, state, target, vocab.JSON if json else vocab.MAKE)]
    alive = jnp.ones(rows, bool)
    for step_key in step_keys:
        move, found, sure = _choose_move(step_key, tables, state, target, mix.follow)
        alive &= found
        after = tables.next_state[move]
        ends = tables.held_out[after]
        tokens, kind = line(tables, tables.moves[move], tables.numbers[after], sure)
        last_policy = max(slot for slot, teaches in enumerate(kind) if teaches == POLICY)
        shown = ~ends[:, None] | (jnp.arange(len(kind)) <= last_policy)
        pieces.append((jnp.where(alive[:, None] & shown, tokens, EMPTY), kind))
        alive &= ~ends
        state = jnp.where(alive, after, state)
    ended = tables.numbers[state, 1] == NO_VALUE
    pieces.append((jnp.where(ended, vocab.EOS, EMPTY)[:, None], [ARITHMETIC]))
    return _pack(pieces, JSON_LENGTH if json else TEXT_LENGTH)


def _value_rows(key: jax.Array, tables: Tables, mix: Mix, rows: int) -> Rows:
    """Rows of unrelated 3-number states, half of which can reach the row's target."""
    target_key, want_key, pool_key, game_key, wide_key = jax.random.split(key, 5)
    shape = (rows, _VALUES_PER_ROW)
    target = _targets(target_key, mix.value_target_24, rows)
    each = jnp.broadcast_to(target[:, None], shape)
    want = jax.random.bernoulli(want_key, 0.5, shape)
    state = jnp.where(
        jax.random.bernoulli(pool_key, mix.wide, shape),
        _draw(wide_key, tables, tables.wide, each, want),
        _draw(game_key, tables, tables.threes, each, want),
    )
    sure = can_reach(tables, state, each)
    pieces = [
        _constants(rows, [vocab.BOS, vocab.MAKE]),
        ((vocab.NUMBER_BASE + target)[:, None], [UNTRAINED]),
        _constants(rows, [vocab.NEWLINE]),
    ]
    for i in range(_VALUES_PER_ROW):
        tokens, _ = _left_and_verdict(tables, tables.numbers[state[:, i]], sure[:, i])
        width = tokens.shape[1]
        pieces.append((tokens, [UNTRAINED] * (width - 2) + [VERDICT, UNTRAINED]))
    return _pack(pieces, TEXT_LENGTH)


def _targets(key: jax.Array, share_24: float, rows: int) -> jax.Array:
    """i32[rows]: 24 for a share of the rows, else uniform from 1 to 100."""
    fixed_key, any_key = jax.random.split(key)
    anything = jax.random.randint(any_key, (rows,), 1, MAX_TARGET + 1)
    return jnp.where(jax.random.bernoulli(fixed_key, share_24, (rows,)), 24, anything)


def _draw(
    key: jax.Array, tables: Tables, pool: jax.Array, target: jax.Array, want: jax.Array
) -> jax.Array:
    """One state of the pool per target, uniform among those that can reach it or that cannot, as
    wanted, up to a limited number of tries.
    """
    states = pool[jax.random.randint(key, (*target.shape, _TRIES), 0, len(pool))]
    fits = can_reach(tables, states, target[..., None]) == want[..., None]
    return jnp.take_along_axis(states, fits.argmax(-1)[..., None], -1)[..., 0]


def _choose_move(
    key: jax.Array, tables: Tables, state: jax.Array, target: jax.Array, follow: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A random move of each state, or one of those that keep the target reachable.

    Moves into held-out states are not among the latter, so that nothing is learnt of their value.

    Returns:
      move i32[rows], whether there is one bool[rows], whether it keeps the target reachable.
    """
    move = tables.first_move[state][:, None] + jnp.arange(_MOST_MOVES)
    exists = move < tables.first_move[state + 1][:, None]
    move = jnp.minimum(move, len(tables.next_state) - 1)
    after = tables.next_state[move]
    good = exists & ~tables.held_out[after] & can_reach(tables, after, target[:, None])
    follow_key, pick_key = jax.random.split(key)
    follows = jax.random.bernoulli(follow_key, follow, state.shape) & good.any(1)
    candidates = jnp.where(follows[:, None], good, exists)
    noise = jax.random.uniform(pick_key, candidates.shape)
    pick = jnp.where(candidates, noise, -1.0).argmax(1)[:, None]

    def chosen(table: jax.Array) -> jax.Array:
        return jnp.take_along_axis(table, pick, 1)[:, 0]

    return chosen(move), chosen(exists), chosen(good)


_Piece = tuple[jax.Array, list[int]]
"""Tokens i32[rows, slots], EMPTY where a slot is not used, and what each slot teaches."""


def _constants(rows: int, tokens: list[int], kind: int = UNTRAINED) -> _Piece:
    """The same tokens in every row."""
    return jnp.broadcast_to(jnp.array(tokens), (rows, len(tokens))), [kind] * len(tokens)


def _join(pieces: list[_Piece]) -> _Piece:
    tokens = jnp.concatenate([tokens for tokens, _ in pieces], 1)
    return tokens, [kind for _, kinds in pieces for kind in kinds]


def _prompt(tables: Tables, state: jax.Array, target: jax.Array, opening: int) -> _Piece:
    """`Make 24 from 4 5 6 10` and a newline; no prompt token is trained."""
    rows = len(state)
    numbers = tables.text_number[tables.numbers[state]].reshape(rows, -1)
    return _join(
        [
            _constants(rows, [vocab.BOS, opening]),
            ((vocab.NUMBER_BASE + target)[:, None], [UNTRAINED]),
            _constants(rows, [vocab.FROM]),
            (numbers, [UNTRAINED] * numbers.shape[1]),
            _constants(rows, [vocab.NEWLINE]),
        ]
    )


def _text_line(tables: Tables, move: jax.Array, left: jax.Array, sure: jax.Array) -> _Piece:
    """` 10 - 6 = 4 (left: 4 4 5) sure` and a newline."""
    a, operator, b, result = move.T
    operators = jnp.array([vocab.token_id(f" {operator}") for operator in OPERATORS])
    return _join(
        [
            (tables.text_number[a], [POLICY] * 2),
            (operators[operator][:, None], [POLICY]),
            (tables.text_number[b], [POLICY] * 2),
            _constants(len(move), [vocab.EQUALS], ARITHMETIC),
            (tables.text_number[result], [ARITHMETIC] * 2),
            _left_and_verdict(tables, left, sure),
        ]
    )


def _left_and_verdict(tables: Tables, left: jax.Array, sure: jax.Array) -> _Piece:
    """` (left: 4 4 5) sure` and a newline."""
    rows = len(left)
    numbers = tables.text_number[left].reshape(rows, -1)
    verdict = jnp.where(sure, vocab.SURE, vocab.IMPOSSIBLE)
    return _join(
        [
            _constants(rows, [vocab.LEFT_OPEN], ARITHMETIC),
            (numbers, [ARITHMETIC] * numbers.shape[1]),
            _constants(rows, [vocab.LEFT_CLOSE], ARITHMETIC),
            (verdict[:, None], [VERDICT]),
            _constants(rows, [vocab.NEWLINE], ARITHMETIC),
        ]
    )


def _json_line(tables: Tables, move: jax.Array, left: jax.Array, sure: jax.Array) -> _Piece:
    """The same step as one JSON object and a newline."""
    rows = len(move)
    a, operator, b, result = move.T
    operators = jnp.array([vocab.token_id(operator) for operator in OPERATORS])
    verdict = jnp.where(sure, vocab.token_id("sure"), vocab.token_id("impossible"))

    def fixed(token: int) -> _Piece:
        return _constants(rows, [token], ARITHMETIC)

    def number(value: jax.Array, kind: int) -> _Piece:
        return tables.json_number[value], [kind] * 4

    others = []
    for value in left[:, 1:].T:
        comma = jnp.where(value == NO_VALUE, EMPTY, _COMMA)[:, None]
        others += [(comma, [ARITHMETIC]), number(value, ARITHMETIC)]
    return _join(
        [
            fixed(_OPEN_A),
            number(a, POLICY),
            fixed(_TO_OPERATOR),
            (operators[operator][:, None], [POLICY]),
            fixed(_TO_B),
            number(b, POLICY),
            fixed(_TO_RESULT),
            number(result, ARITHMETIC),
            fixed(_TO_LEFT),
            number(left[:, 0], ARITHMETIC),
            *others,
            fixed(_TO_VALUE),
            (verdict[:, None], [VERDICT]),
            fixed(_CLOSE),
            fixed(vocab.NEWLINE),
        ]
    )


def _pack(pieces: list[_Piece], length: int) -> Rows:
    """Closes the gaps of the slots and pads or cuts the rows to a length."""
    slots, kinds = _join(pieces)
    position = jnp.where(slots == EMPTY, length, jnp.cumsum(slots != EMPTY, 1) - 1)
    row = jnp.arange(len(slots))[:, None]
    tokens = jnp.full((len(slots), length), vocab.PAD).at[row, position].set(slots, mode="drop")
    kind = jnp.full((len(slots), length), UNTRAINED)
    kind = kind.at[row, position].set(jnp.array(kinds), mode="drop")
    return Rows(tokens, kind)


def _game_states(graph: StateGraph) -> int:
    """How many states belong to the game itself; added ones follow the single numbers."""
    ends = np.flatnonzero(graph.size == 1)
    return int(ends[-1]) + 1


def _text_numbers() -> np.ndarray:
    """i32[values + 1, 2]: the tokens of each number, with its leading space."""
    values = value_table()
    whole = vocab.NUMBER_BASE + values.numerator
    part = np.where(values.denominator == 1, EMPTY, vocab.DENOMINATOR_BASE + values.denominator)
    return np.vstack([np.column_stack([whole, part]), [[EMPTY] * 2]]).astype(np.int32)


def _json_numbers() -> np.ndarray:
    """i32[values + 1, 4]: the tokens of each number in digits."""
    values = value_table()
    rows = np.full((len(values.numerator) + 1, 4), EMPTY, np.int32)
    for row, numerator, denominator in zip(
        rows, values.numerator, values.denominator, strict=False
    ):
        digits = [vocab.token_id(digit) for digit in str(numerator)]
        row[: len(digits)] = digits
        if denominator > 1:
            row[3] = vocab.DENOMINATOR_BASE + denominator
    return rows
