"""Beam search over tokens, batched over problems."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax import engine
from dendrite_jax.cache import NO_BRANCH, Ledger
from dendrite_jax.engine import NO_TOKEN, Model, State
from dendrite_jax.engine.loops import while_any
from dendrite_jax.search.beam.config import BeamSearchConfig
from dendrite_jax.search.beam.ranking import (
    Beams,
    Ranked,
    keep_where,
    merge,
    rank_continuations,
    ranked_per_beam,
)
from dendrite_jax.search.outcome import COMPLETE, NO_ROOM, UNUSED
from dendrite_jax.search.piece import Piece
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.select import best
from dendrite_jax.search.session import Session, check_roots
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


class BeamPieces(Piece):
    """The replaceable parts of a beam search."""

    stop_tokens: Array | None = None  # i32[n], a beam that takes one is finished

    @property
    def stops(self) -> Array | None:
        """i32[n], or None where nothing ends a beam: no loop may read an array of size zero."""
        return None if self.stop_tokens is None or not self.stop_tokens.size else self.stop_tokens


class BeamLoop(struct.PyTreeNode):
    """The search between two token steps; a row is a group of beams of a problem."""

    session: Session
    tree: SearchTree
    length: Array  # i32[], tokens of the running beams
    branches: Array  # i32[rows, beams], of the running beams; NO_BRANCH for none
    running: Beams
    finished: Beams
    searching_rows: Array  # bool[rows]
    at_capacity: Array  # bool[rows]
    before: Ledger  # of the session, before the search
    config: BeamSearchConfig = struct.field(pytree_node=False)

    @property
    def state(self) -> State:
        return self.session.state

    @property
    def searching(self) -> Array:
        """bool[problems]"""
        return jnp.any(self.searching_rows.reshape(-1, self.config.groups), axis=1)


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
    pieces = BeamPieces(stop_tokens)
    loop = start(pieces, state, roots, key, config)
    loop = while_any(unfinished, partial(advance, model, pieces), loop)
    return finish(pieces, loop)


def start(
    pieces: BeamPieces, state: State, roots: Array, key: Array | None, config: BeamSearchConfig
) -> BeamLoop:
    """Each group of a problem starts with one beam at its root; see `protocol`."""
    del pieces, key
    before = state.cache.ledger
    state, roots, root_outcome = check_roots(state, roots)
    problems = roots.shape[0]
    by_row = jnp.repeat(roots, config.groups)
    state, first = engine.fork(state, by_row)
    # A prompt that found no room has left its flag, and no hidden state to go on from.
    ready = (first >= 0) & (state.cache.error[jnp.maximum(first, 0)] == 0)
    shape = (problems * config.groups, config.width // config.groups)
    none = Beams(
        node=jnp.full(shape, NO_NODE, jnp.int32),
        logprob=jnp.full(shape, -jnp.inf, jnp.float32),
        score=jnp.full(shape, -jnp.inf, jnp.float32),
    )
    at_capacity = (by_row >= 0) & ~ready
    refused = jnp.any(at_capacity.reshape(problems, -1), axis=1)
    root_outcome = jnp.where(refused, NO_ROOM, root_outcome)
    tree = SearchTree.empty(problems, config.num_nodes, 1)
    return BeamLoop(
        session=Session(state),
        tree=tree.replace(outcome=tree.outcome.at[:, ROOT].set(root_outcome)),
        length=jnp.int32(0),
        branches=jnp.full(shape, NO_BRANCH, jnp.int32).at[:, 0].set(first),
        running=none._replace(
            node=none.node.at[:, 0].set(ROOT),
            logprob=none.logprob.at[:, 0].set(jnp.where(ready, 0.0, -jnp.inf)),
        ),
        finished=none,
        searching_rows=ready,
        at_capacity=at_capacity,
        before=before,
        config=config,
    )


def unfinished(loop: BeamLoop) -> Array:
    """bool[], some group has beams that may still become better than its finished ones."""
    return jnp.any(loop.searching_rows)


def advance(model: Model, pieces: BeamPieces, loop: BeamLoop) -> BeamLoop:
    """Ranks every continuation, finishes those that stop, and runs on with the best others."""
    config, stop_tokens = loop.config, pieces.stops
    _check_vocabulary(model.vocab_size, config, stop_tokens)
    rows, beams = loop.branches.shape
    length = loop.length + unfinished(loop)
    ranked, chosen = rank_continuations(
        model,
        loop.state,
        loop.running,
        loop.branches,
        loop.searching_rows,
        length,
        config,
        stop_tokens,
    )
    candidates = Beams(
        node=jnp.take_along_axis(loop.running.node, ranked.parent, axis=1),
        logprob=ranked.logprob,
        score=config.score(ranked.logprob, jnp.maximum(length, 1)),
    )
    # Only a stop among the best continuations, one a beam, finishes a beam.
    stopped = jax.tree.map(lambda field: field[:, :beams], (candidates, ranked))
    stopped = (keep_where(stopped[0], stopped[1].stops), stopped[1])
    grown = jax.tree.map(lambda field: jnp.take_along_axis(field, chosen, 1), (candidates, ranked))
    grown = (keep_where(grown[0], ~grown[1].stops), grown[1])
    tree, running, ended = _record(loop, grown, stopped)

    parents = jnp.take_along_axis(loop.branches, grown[1].parent, axis=1)
    parents = jnp.where(jnp.isneginf(running.logprob), NO_BRANCH, parents)
    state, children = engine.fork(loop.state, parents.reshape(-1))
    state = engine.free(state, loop.branches.reshape(-1))
    state, ok = engine.advance(model, state, children, grown[1].token.reshape(-1))

    # A group that ran out of room ends here with what it has.
    stuck = jnp.any((parents >= 0) & ~ok.reshape(rows, beams), axis=1)
    finished = merge(loop.finished, ended)
    finished = merge(finished, keep_where(running, stuck[:, None]))
    searching = loop.searching_rows & ~stuck & _can_improve(running, finished, length, config)
    branches = children.reshape(rows, beams)
    state = engine.free(state, jnp.where(searching[:, None], NO_BRANCH, branches).reshape(-1))
    return loop.replace(
        session=Session(state),
        tree=tree,
        length=length,
        branches=jnp.where(searching[:, None], branches, NO_BRANCH),
        running=keep_where(running, searching[:, None]),
        finished=finished,
        searching_rows=searching,
        at_capacity=loop.at_capacity | stuck,
    )


def read(pieces: BeamPieces, loop: BeamLoop) -> SearchResult:
    """The finished beams of all groups of a problem together, by score."""
    del pieces
    config, problems = loop.config, loop.tree.parent.shape[0]
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
        frontier=jnp.where(loop.branches >= 0, loop.running.node, NO_NODE).reshape(problems, -1),
        cut=loop.searching,
        at_capacity=jnp.any(loop.at_capacity.reshape(problems, -1), axis=1),
        max_depth=config.max_new_tokens,
        state=loop.state,
        ledger=loop.state.cache.ledger.since(loop.before),
    )


def finish(pieces: BeamPieces, loop: BeamLoop) -> tuple[State, SearchResult]:
    """Ends a search; beams that still run are among the answers only once they have finished."""
    state = engine.free(loop.state, loop.branches.reshape(-1))
    return state, read(pieces, loop.replace(session=Session(state)))


def _check_vocabulary(vocab_size: int, config: BeamSearchConfig, stop_tokens: Array | None) -> None:
    num_stops = 0 if stop_tokens is None else stop_tokens.shape[0]
    per_beam = ranked_per_beam(stop_tokens)
    if config.width > vocab_size:
        raise ValueError(f"width is {config.width}; it must be at most vocab_size, {vocab_size}")
    if per_beam > vocab_size:
        raise ValueError(
            f"stop_tokens are {num_stops} and vocab_size is {vocab_size}; it must be at least "
            f"{per_beam}, the continuations that a token step ranks for each beam"
        )


def _record(
    loop: BeamLoop,
    grown: tuple[Beams, Ranked],
    stopped: tuple[Beams, Ranked],
) -> tuple[SearchTree, Beams, Beams]:
    """Writes the tokens of a token step; the tree, and the nodes of beams that run on or end.

    The beams come in as continuations of the nodes they name.
    """
    config, problems = loop.config, loop.tree.parent.shape[0]
    tree, made = loop.tree, []
    for place, (beams, ranked) in enumerate((grown, stopped)):
        first = 1 + (2 * loop.length + place) * config.width
        is_beam = ~jnp.isneginf(beams.logprob)
        before = jnp.take_along_axis(loop.running.logprob, ranked.parent, axis=1)
        nodes = jnp.broadcast_to(first + jnp.arange(config.width), (problems, config.width))
        nodes = jnp.where(is_beam, nodes.reshape(is_beam.shape), NO_NODE)
        rows = {
            "parent": jnp.where(is_beam, beams.node, NO_NODE),
            "depth": jnp.where(is_beam, loop.length + 1, 0),
            "raw_logprob": jnp.where(is_beam, ranked.raw_logprob, 0.0),
            "logprob": jnp.where(is_beam, beams.logprob - before, 0.0),
            "value": beams.logprob,
            "merge_key": jnp.maximum(nodes, 0),  # no two are one answer
            "visits": is_beam.astype(jnp.int32),
            "terminal": is_beam & ranked.stops,
            "outcome": jnp.where(is_beam, COMPLETE, UNUSED),
        }
        tree = tree.write(
            first,
            tokens=jnp.where(is_beam, ranked.token, NO_TOKEN).reshape(problems, -1, 1),
            **{name: row.reshape(problems, -1) for name, row in rows.items()},
        )
        made.append(beams._replace(node=nodes))
    return tree, made[0], made[1]


def _can_improve(running: Beams, finished: Beams, length: Array, config: BeamSearchConfig) -> Array:
    """Whether each group's running beams may still beat its finished ones, bool[rows]."""
    alive = ~jnp.isneginf(running.logprob[:, 0])
    worst = jnp.min(finished.score, axis=1)  # −inf until all beams have finished
    if config.early_stopping is True:
        return alive & jnp.isneginf(worst)
    longest = config.early_stopping == "never" and config.length_penalty > 0
    hoped_for = config.score(running.logprob[:, 0], config.max_new_tokens if longest else length)
    return alive & (hoped_for > worst)
