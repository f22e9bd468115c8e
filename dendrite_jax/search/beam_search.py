"""Beam search over tokens, batched over problems."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import engine
from dendrite_jax.cache import Ledger
from dendrite_jax.engine import NO_TOKEN, Model, State
from dendrite_jax.search.branches import refuse_empty
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.select import best
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


@dataclass(frozen=True)
class BeamSearchConfig:
    """Static shape of the search; scores and stopping follow Hugging Face's `generate`.

    Attributes:
      width: beams a problem.
      max_new_tokens: most tokens a beam gets.
      length_penalty: α. A finished beam's score is its log-probability / length ** α.
      gnmt: divides by ((5 + length) / 6) ** α instead (Wu et al. 2016).
      early_stopping: True stops as soon as all beams have finished. False goes on until the best
        running beam, scored at its present length, is worse than every finished one; "never" scores
        it at the length, up to `max_new_tokens`, that is best for it.
      groups: the beams are so many equal groups, each a beam search of its own, that stay apart by
        the diversity penalty (Vijayakumar et al. 2016).
      diversity_penalty: what a token costs a beam for each beam of the groups before it that takes
        it in the same step; the cost stays with the beam.
    """

    width: int = 4
    max_new_tokens: int = 64
    length_penalty: float = 1.0
    gnmt: bool = False
    early_stopping: bool | Literal["never"] = False
    groups: int = 1
    diversity_penalty: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "width", "max_new_tokens", "groups")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(
                f'early_stopping is {self.early_stopping!r}; it must be True, False or "never"'
            )
        if self.width % self.groups:
            raise ValueError(
                f"width is {self.width}; it must be a multiple of groups, {self.groups}"
            )
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty is {self.length_penalty}; it must be finite")
        if not 0 <= self.diversity_penalty < math.inf:
            raise ValueError(
                f"diversity_penalty is {self.diversity_penalty}; it must be at least 0 and finite"
            )

    @property
    def num_nodes(self) -> int:
        """Nodes of a full tree, the root included: a step's new running and finished beams."""
        return 1 + self.max_new_tokens * 2 * self.width

    @property
    def num_slots(self) -> int:
        """Branches that one problem holds at once, its root included."""
        return 1 + 2 * self.width

    def score(self, logprob: Array, length: Array | int) -> Array:
        """f32[...] scores of beams of log-probability f32[...] and length i32[...]."""
        size = jnp.asarray(length, jnp.float32)
        return logprob / ((5.0 + size) / 6.0 if self.gnmt else size) ** self.length_penalty


class _Beams(NamedTuple):
    """Beams of each group; a row is a group of a problem."""

    node: Array  # i32[rows, beams]
    logprob: Array  # f32[rows, beams], less the diversity penalties; −inf for none
    score: Array  # f32[rows, beams], logprob under the length penalty; −inf for none


class _Ranked(NamedTuple):
    """The best continuations of each group, best first."""

    parent: Array  # i32[rows, ranked], beams
    token: Array  # i32[rows, ranked]
    raw_logprob: Array  # f32[rows, ranked], of the token
    logprob: Array  # f32[rows, ranked], of the beam; −inf for none
    stops: Array  # bool[rows, ranked], the token ends its beam


class _Loop(NamedTuple):
    step: Array  # i32[]
    state: State
    branches: Array  # i32[rows, beams], of the running beams
    running: _Beams
    finished: _Beams
    searching: Array  # bool[rows]
    at_capacity: Array  # bool[rows]
    tree: SearchTree


def beam_search(
    model: Model,
    state: State,
    roots: Array,
    key: Array | None,
    config: BeamSearchConfig,
    *,
    stop_tokens: Array | None = None,
) -> tuple[State, SearchResult]:
    """Finds likely continuations of each root.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held.
      key: unused, beam search is deterministic; here so that all searches are called alike.
      config: static shape of the search.
      stop_tokens: i32[n], a beam that takes one is finished.

    Returns:
      The state, with every branch but the roots freed, and the result: the finished beams by score.
      A node of the tree is a token, its value the log-probability of the beam up to it, less the
      diversity penalties. A problem that runs out of blocks, slots or context ends with the beams
      it has.

    Raises:
      ValueError: more beams in a group than the vocabulary has tokens, or fewer tokens than a step
        must rank for each beam.
    """
    del key
    stop_tokens = jnp.zeros(0, jnp.int32) if stop_tokens is None else stop_tokens
    beams = config.width // config.groups
    per_beam = max(2, 1 + stop_tokens.shape[0])
    _check_vocabulary(model.vocab_size, config, stop_tokens.shape[0], per_beam)
    before = state.cache.ledger
    loop = _start(*refuse_empty(state, roots), config, beams)

    def body(loop: _Loop) -> _Loop:
        return _step(model, loop, config, stop_tokens, per_beam * beams)

    loop = jax.lax.while_loop(lambda loop: jnp.any(loop.searching), body, loop)
    state = engine.free(loop.state, loop.branches.reshape(-1))
    return state, _result(loop, state, before, config)


def _check_vocabulary(
    vocab_size: int, config: BeamSearchConfig, num_stops: int, per_beam: int
) -> None:
    if config.width > vocab_size:
        raise ValueError(f"width is {config.width}; it must be at most vocab_size, {vocab_size}")
    if per_beam > vocab_size:
        raise ValueError(
            f"stop_tokens are {num_stops} and vocab_size is {vocab_size}; it must be at least "
            f"{per_beam}, the continuations that a step ranks for each beam"
        )


def _start(state: State, roots: Array, config: BeamSearchConfig, beams: int) -> _Loop:
    """Each group of a problem starts with one beam at its root."""
    problems = roots.shape[0]
    by_row = jnp.repeat(roots, config.groups)
    state, first = engine.fork(state, by_row)
    # A prompt that found no room has left its flag, and no hidden state to go on from.
    ready = (first >= 0) & (state.cache.error[jnp.maximum(first, 0)] == 0)
    shape = (problems * config.groups, beams)
    none = _Beams(
        node=jnp.full(shape, NO_NODE, jnp.int32),
        logprob=jnp.full(shape, -jnp.inf, jnp.float32),
        score=jnp.full(shape, -jnp.inf, jnp.float32),
    )
    return _Loop(
        step=jnp.int32(0),
        state=state,
        branches=none.node.at[:, 0].set(first),
        running=none._replace(
            node=none.node.at[:, 0].set(ROOT),
            logprob=none.logprob.at[:, 0].set(jnp.where(ready, 0.0, -jnp.inf)),
        ),
        finished=none,
        searching=ready,
        at_capacity=(by_row >= 0) & ~ready,
        tree=SearchTree.empty(problems, config.num_nodes, 1),
    )


def _step(
    model: Model, loop: _Loop, config: BeamSearchConfig, stop_tokens: Array, num_ranked: int
) -> _Loop:
    """Ranks every continuation, finishes those that stop, and runs on with the best others."""
    rows, beams = loop.branches.shape
    length = loop.step + 1
    ranked, chosen = _rank_continuations(model, loop, config, stop_tokens, num_ranked)
    candidates = _Beams(
        node=jnp.take_along_axis(loop.running.node, ranked.parent, axis=1),
        logprob=ranked.logprob,
        score=config.score(ranked.logprob, length),
    )
    # Only a stop among the best continuations, one a beam, finishes a beam.
    stopped = jax.tree.map(lambda field: field[:, :beams], (candidates, ranked))
    stopped = (_keep_where(stopped[0], stopped[1].stops), stopped[1])
    grown = jax.tree.map(lambda field: jnp.take_along_axis(field, chosen, 1), (candidates, ranked))
    grown = (_keep_where(grown[0], ~grown[1].stops), grown[1])
    tree, running, ended = _record(loop, config, grown, stopped)

    parents = jnp.take_along_axis(loop.branches, grown[1].parent, axis=1)
    parents = jnp.where(jnp.isneginf(running.logprob), -1, parents)
    state, children = engine.fork(loop.state, parents.reshape(-1))
    state = engine.free(state, loop.branches.reshape(-1))
    state, ok = engine.advance(model, state, children, grown[1].token.reshape(-1))

    # A group that ran out of room ends here with what it has.
    stuck = jnp.any((parents >= 0) & ~ok.reshape(rows, beams), axis=1)
    finished = _merge(loop.finished, ended)
    finished = _merge(finished, _keep_where(running, stuck[:, None]))
    searching = loop.searching & ~stuck & _can_improve(running, finished, length, config)
    branches = children.reshape(rows, beams)
    state = engine.free(state, jnp.where(searching[:, None], -1, branches).reshape(-1))
    return _Loop(
        step=length,
        state=state,
        branches=jnp.where(searching[:, None], branches, -1),
        running=_keep_where(running, searching[:, None]),
        finished=finished,
        searching=searching,
        at_capacity=loop.at_capacity | stuck,
        tree=tree,
    )


def _rank_continuations(
    model: Model, loop: _Loop, config: BeamSearchConfig, stop_tokens: Array, num_ranked: int
) -> tuple[_Ranked, Array]:
    """The best continuations of each group, and the i32[rows, beams] of them that run on.

    The groups of a problem choose one after the other, each knowing what those before it took.
    """
    rows, beams = loop.branches.shape
    problems = rows // config.groups
    ids = loop.branches.reshape(-1)
    raw = jax.nn.log_softmax(engine.next_logits(model, loop.state, ids))
    allowed = engine.mask_logits(loop.state, ids, raw)
    vocab = raw.shape[-1]
    problem = jnp.arange(problems)[:, None]
    last = loop.step + 1 == config.max_new_tokens

    def choose(taken: Array, group: tuple[Array, ...]) -> tuple[Array, tuple[_Ranked, Array]]:
        raw, allowed, before, branches, searching = group
        total = allowed - config.diversity_penalty * taken[:, None] + before[..., None]
        total = jnp.where(searching[:, None, None], total, -jnp.inf)
        logprob, index = jax.lax.top_k(total.reshape(problems, -1), num_ranked)
        parent, token = jnp.divmod(index, vocab)
        branch = jnp.take_along_axis(branches, parent, axis=1)
        stops = jnp.any(token[..., None] == stop_tokens, axis=-1) | last
        stops |= engine.ends_text(loop.state, branch, token)
        runs_on, chosen = jax.lax.top_k(jnp.where(stops, -jnp.inf, logprob), beams)
        next_token = jnp.take_along_axis(token, chosen, axis=1)
        taken = taken.at[problem, next_token].add(~jnp.isneginf(runs_on))
        ranked = _Ranked(parent, token, raw[problem, parent, token], logprob, stops)
        return taken, (ranked, chosen)

    def by_group(field: Array) -> Array:
        return jnp.moveaxis(field.reshape(problems, config.groups, *field.shape[1:]), 1, 0)

    def by_row(field: Array) -> Array:
        return jnp.moveaxis(field, 0, 1).reshape(rows, *field.shape[2:])

    groups = (
        raw.reshape(rows, beams, vocab),
        allowed.reshape(rows, beams, vocab),
        loop.running.logprob,
        loop.branches,
        loop.searching,
    )
    nothing_taken = jnp.zeros((problems, vocab), jnp.float32)
    _, chosen = jax.lax.scan(choose, nothing_taken, jax.tree.map(by_group, groups))
    return jax.tree.map(by_row, chosen)


def _record(
    loop: _Loop,
    config: BeamSearchConfig,
    grown: tuple[_Beams, _Ranked],
    stopped: tuple[_Beams, _Ranked],
) -> tuple[SearchTree, _Beams, _Beams]:
    """Writes the step's tokens; the tree, and the beams that run on and that end, as its nodes.

    The beams come in as continuations of the nodes they name.
    """
    problems = loop.tree.parent.shape[0]
    tree, made = loop.tree, []
    for place, (beams, ranked) in enumerate((grown, stopped)):
        first = 1 + (2 * loop.step + place) * config.width
        is_beam = ~jnp.isneginf(beams.logprob)
        before = jnp.take_along_axis(loop.running.logprob, ranked.parent, axis=1)
        nodes = jnp.broadcast_to(first + jnp.arange(config.width), (problems, config.width))
        nodes = jnp.where(is_beam, nodes.reshape(is_beam.shape), NO_NODE)
        rows = {
            "parent": jnp.where(is_beam, beams.node, NO_NODE),
            "depth": jnp.where(is_beam, loop.step + 1, 0),
            "raw_logprob": jnp.where(is_beam, ranked.raw_logprob, 0.0),
            "logprob": jnp.where(is_beam, beams.logprob - before, 0.0),
            "value": beams.logprob,
            "merge_key": jnp.maximum(nodes, 0),  # no two are one answer
            "visits": is_beam.astype(jnp.int32),
            "terminal": is_beam & ranked.stops,
        }
        tree = tree.write(
            first,
            tokens=jnp.where(is_beam, ranked.token, NO_TOKEN).reshape(problems, -1, 1),
            **{name: row.reshape(problems, -1) for name, row in rows.items()},
        )
        made.append(beams._replace(node=nodes))
    return tree, made[0], made[1]


def _can_improve(
    running: _Beams, finished: _Beams, length: Array, config: BeamSearchConfig
) -> Array:
    """Whether each group's running beams may still beat its finished ones, bool[rows]."""
    alive = ~jnp.isneginf(running.logprob[:, 0])
    worst = jnp.min(finished.score, axis=1)  # −inf until all beams have finished
    if config.early_stopping is True:
        return alive & jnp.isneginf(worst)
    longest = config.early_stopping == "never" and config.length_penalty > 0
    hoped_for = config.score(running.logprob[:, 0], config.max_new_tokens if longest else length)
    return alive & (hoped_for > worst)


def _result(loop: _Loop, state: State, before: Ledger, config: BeamSearchConfig) -> SearchResult:
    """The finished beams of all groups of a problem together, by score."""
    problems = loop.tree.parent.shape[0]
    node, score = (
        field.reshape(problems, -1) for field in (loop.finished.node, loop.finished.score)
    )
    scores, answers = best(config.width, score, node)
    named = jnp.where(answers >= 0, answers, config.num_nodes)
    terminal = loop.tree.terminal.at[jnp.arange(problems)[:, None], named].set(True, mode="drop")
    return SearchResult.of(
        loop.tree.replace(terminal=terminal),
        answers,
        scores,
        jnp.any(loop.at_capacity.reshape(problems, -1), axis=1),
        max_depth=config.max_new_tokens,
        state=state,
        ledger=state.cache.ledger.since(before),
    )


def _merge(beams: _Beams, more: _Beams) -> _Beams:
    """The best of two sets by score, as many as the first has."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), beams, more)
    _, index = jax.lax.top_k(both.score, beams.score.shape[1])
    return jax.tree.map(lambda field: jnp.take_along_axis(field, index, axis=1), both)


def _keep_where(beams: _Beams, keep: Array) -> _Beams:
    """Beams with −inf scores where not kept."""
    return beams._replace(
        logprob=jnp.where(keep, beams.logprob, -jnp.inf),
        score=jnp.where(keep, beams.score, -jnp.inf),
    )
