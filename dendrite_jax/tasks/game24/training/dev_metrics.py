"""Scores of a model in training on the development puzzles, whose states it never sees.

These choose the checkpoint and are cheap: one token is read per step that is valued, and the tree
search of `search_rate` is offered every legal move instead of sampled ones. The search itself, as
users run it, is in the engine and is scored once, on the test puzzles.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from dendrite_jax.models.config import ModelConfig
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.rules import (
    State,
    apply_step,
    format_prompt,
    format_step,
    legal_moves,
    reachable_values,
)
from dendrite_jax.tasks.game24.training.network import Params, forward
from dendrite_jax.tasks.game24.training.sampling import TEXT_LENGTH

TARGET = 24
BEAM_WIDTHS = (1, 5, 25)
_BATCH = 2048
_SECOND_STEPS = 12
_STEPS = 3

Scorer = Callable[[Sequence[str]], np.ndarray]
"""Texts that end on a step's closing bracket to P(sure) / (P(sure) + P(impossible)), f32[texts]."""


class DevMetrics(NamedTuple):
    """All rates between 0 and 1."""

    auc_first: float  # of the values of all 3-number states below the puzzles, none ever trained on
    auc_second: float  # of the values of some 2-number states below them
    legality: float  # of sampled steps, up to and including a row's first illegal one
    sampled: float  # solved by one sample at temperature 1
    greedy: float  # solved by the likeliest tokens
    search: tuple[float, ...]  # solved by a search over all legal moves, per BEAM_WIDTHS


class DevSet:
    """The development puzzles with their texts and compiled functions."""

    def __init__(
        self, puzzles: Sequence[State], tokenizer: Tokenizer, config: ModelConfig, samples: int = 4
    ):
        """Draws the second steps that are valued (seeded) and sets up the jitted functions.

        Args:
          puzzles: four numbers each.
          tokenizer: of `tokenizer_build`.
          config: the shape of the model that will be scored.
          samples: rows sampled per puzzle.
        """
        self._puzzles = list(puzzles)
        self._tokenizer = tokenizer
        self._samples = samples
        self._first, self._second = _valued_steps(self._puzzles)
        self._values = jax.jit(partial(_sure_probability, config=config))
        self._sample = jax.jit(partial(_sample_rows, config=config))

    def evaluate(self, params: Params, key: jax.Array) -> DevMetrics:
        """Scores one set of parameters; the key is for the sampled rows."""
        score = partial(self._score, params)
        sampled, legality = self._solve(params, key, temperature=1.0, samples=self._samples)
        greedy, _ = self._solve(params, key, temperature=0.0, samples=1)
        return DevMetrics(
            auc_first=area_under_curve(score(self._first[0]), self._first[1]),
            auc_second=area_under_curve(score(self._second[0]), self._second[1]),
            legality=legality,
            sampled=sampled,
            greedy=greedy,
            search=tuple(search_rate(self._puzzles, width, score) for width in BEAM_WIDTHS),
        )

    def _score(self, params: Params, texts: Sequence[str]) -> np.ndarray:
        """The `Scorer` of some parameters, in batches of one shape."""
        scores = []
        for start in range(0, len(texts), _BATCH):
            encoded = self._tokenizer.encode_batch(
                list(texts[start : start + _BATCH]), add_special_tokens=False
            )
            tokens = np.full((_BATCH, TEXT_LENGTH), vocab.PAD, np.int32)
            last = np.zeros(_BATCH, np.int32)
            for row, encoding in enumerate(encoded):
                ids = [vocab.BOS, *encoding.ids][:TEXT_LENGTH]
                tokens[row, : len(ids)] = ids
                last[row] = len(ids) - 1
            scores.append(np.asarray(self._values(params, tokens, last))[: len(encoded)])
        return np.concatenate(scores) if scores else np.zeros(0, np.float32)

    def _solve(
        self, params: Params, key: jax.Array, temperature: float, samples: int
    ) -> tuple[float, float]:
        """The share of sampled rows that solve their puzzle, and the share of legal steps."""
        puzzles = [puzzle for puzzle in self._puzzles for _ in range(samples)]
        prompts = self._tokenizer.encode_batch(
            [format_prompt(puzzle, TARGET) for puzzle in puzzles], add_special_tokens=False
        )
        opening = np.array([[vocab.BOS, *prompt.ids] for prompt in prompts], np.int32)
        rows = np.asarray(self._sample(params, opening, key, jnp.float32(temperature)))
        solved = legal = steps = 0
        for puzzle, row in zip(puzzles, rows, strict=True):
            text = self._tokenizer.decode([int(token) for token in row[opening.shape[1] :]])
            state = puzzle
            for line in text.split("\n")[:_STEPS]:
                after = apply_step(state, line)
                steps += 1
                if after is None:
                    break
                legal += 1
                state = after
            solved += state == (TARGET,)
        return solved / len(puzzles), legal / steps


def search_rate(puzzles: Sequence[State], width: int, score: Scorer) -> float:
    """The share of puzzles that a breadth-first search solves, given all legal moves.

    Of each level's states, doubles merged, the `width` best are kept; a puzzle counts as solved
    when a kept last state is the target.
    """
    levels: list[dict[State, str]] = [{puzzle: format_prompt(puzzle, TARGET)} for puzzle in puzzles]
    for _ in range(_STEPS):
        children = [
            {
                move.state: text + format_step(move)
                for state, text in level.items()
                for move in legal_moves(state)
            }
            for level in levels
        ]
        scores = iter(score([text for level in children for text in level.values()]))
        ranked = [sorted(level, key=lambda _: next(scores), reverse=True) for level in children]
        levels = [
            {state: _with_verdict(level[state]) for state in order[:width]}
            for level, order in zip(children, ranked, strict=True)
        ]
    return sum((TARGET,) in level for level in levels) / len(puzzles)


def random_scorer(seed: int) -> Scorer:
    """The control: values drawn at random."""
    generator = np.random.default_rng(seed)
    return lambda texts: generator.random(len(texts))


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """The chance that a true item outscores a false one, ties counting half."""
    order = np.sort(scores)
    ranks = (np.searchsorted(order, scores, "left") + np.searchsorted(order, scores, "right")) / 2
    true, false = int(labels.sum()), int((~labels).sum())
    return float((ranks[labels].sum() - true * true / 2) / (true * false))


def _with_verdict(text: str) -> str:
    """The text as the search continues it: states that it keeps are taken to be solvable."""
    return f"{text} sure\n"


def _valued_steps(puzzles: Sequence[State]) -> tuple[tuple[list[str], np.ndarray], ...]:
    """(texts, labels bool[texts]) of all first steps and of a seeded choice of second steps."""
    generator = random.Random(0)
    first: list[tuple[str, bool]] = []
    second: list[tuple[str, bool]] = []
    for puzzle in puzzles:
        texts = {
            move.state: format_prompt(puzzle, TARGET) + format_step(move)
            for move in legal_moves(puzzle)
        }
        first += [(text, _solvable(state)) for state, text in texts.items()]
        for state in generator.choices(list(texts), k=_SECOND_STEPS):
            move = generator.choice(legal_moves(state))
            text = _with_verdict(texts[state]) + format_step(move)
            second.append((text, _solvable(move.state)))
    return tuple(
        ([text for text, _ in steps], np.array([label for _, label in steps]))
        for steps in (first, second)
    )


def _solvable(state: State) -> bool:
    return TARGET in reachable_values(state)


def _sure_probability(
    params: Params, tokens: jax.Array, last: jax.Array, config: ModelConfig
) -> jax.Array:
    """P(sure) against P(impossible) after position `last` of each row, f32[rows]."""
    logits = forward(params, tokens, config).astype(jnp.float32)
    logits = jnp.take_along_axis(logits, last[:, None, None], 1)[:, 0]
    return jax.nn.sigmoid(logits[:, vocab.SURE] - logits[:, vocab.IMPOSSIBLE])


def _sample_rows(
    params: Params, opening: jax.Array, key: jax.Array, temperature: jax.Array, config: ModelConfig
) -> jax.Array:
    """Continues prompts of one length to TEXT_LENGTH tokens; temperature 0 takes the likeliest."""
    start = opening.shape[1]
    tokens = jnp.pad(opening, ((0, 0), (0, TEXT_LENGTH - start)), constant_values=vocab.PAD)

    def add_token(position: jax.Array, tokens: jax.Array) -> jax.Array:
        logits = forward(params, tokens, config).astype(jnp.float32)[:, position - 1]
        noise = jax.random.gumbel(jax.random.fold_in(key, position), logits.shape)
        return tokens.at[:, position].set((logits + temperature * noise).argmax(-1))

    return jax.lax.fori_loop(start, TEXT_LENGTH, add_token, tokens)
