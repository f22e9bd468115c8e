"""Search level by level: greedy, sample, best of n, step beams, DVTS, REBASE, tree of thoughts.

All of them are these functions under the config of each (`LevelsConfig`).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache import NO_BRANCH
from dendrite_jax.engine import Model, State
from dendrite_jax.engine.loops import run_if, while_any
from dendrite_jax.search.levels.aggregation import aggregate
from dendrite_jax.search.levels.config import Level, LevelsConfig, LevelsLoop
from dendrite_jax.search.levels.lookahead import look_ahead
from dendrite_jax.search.outcome import MERGED, NO_ROOM, outcome_of, set_aside
from dendrite_jax.search.protocol import Pieces
from dendrite_jax.search.record import record_thoughts
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score.scored import usable_value
from dendrite_jax.search.select import best, drop_duplicates, is_chosen
from dendrite_jax.search.session import AnyScorer, Session, open_session
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


def search_levels(
    model: Model, pieces: Pieces, state: State, roots: Array, key: Array, config: LevelsConfig
) -> tuple[State, SearchResult]:
    """Searches every problem at once, level by level, to the end."""
    loop = start(pieces, state, roots, key, config)
    loop = while_any(unfinished, partial(advance, model, pieces), loop)
    return finish(pieces, loop)


def start(
    pieces: Pieces, state: State, roots: Array, key: Array, config: LevelsConfig
) -> LevelsLoop:
    """The search before its first level; see `protocol`."""
    problems = roots.shape[0]
    opened = open_session(pieces.score, state, roots, key)
    session, first = opened.session.fork(pieces.score, opened.roots)
    refused = (opened.roots >= 0) & (first < 0)
    thought_tokens = pieces.expand.max_tokens
    if pieces.last is not None:
        thought_tokens = max(thought_tokens, pieces.last.max_tokens)
    tree = SearchTree.empty(problems, config.num_nodes, thought_tokens)
    root_outcome = jnp.where(refused, NO_ROOM, opened.outcome)
    shape = (problems, config.kept)
    return LevelsLoop(
        session=session,
        tree=tree.replace(outcome=tree.outcome.at[:, ROOT].set(root_outcome)),
        level=jnp.int32(0),
        frontier=jnp.full(shape, NO_BRANCH, jnp.int32).at[:, 0].set(first),
        nodes=jnp.full(shape, NO_NODE, jnp.int32).at[:, 0].set(ROOT),
        path_value=jnp.zeros(shape, jnp.float32),
        answers=jnp.full((problems, config.num_answers), NO_NODE, jnp.int32),
        values=jnp.full((problems, config.num_answers), -jnp.inf, jnp.float32),
        at_capacity=refused,
        key=jax.random.key_data(opened.keys),
        before=opened.before,
        config=config,
    )


def unfinished(loop: LevelsLoop) -> Array:
    """bool[], some problem has a thought to grow from and a level left."""
    return jnp.any(loop.searching)


def advance(model: Model, pieces: Pieces, loop: LevelsLoop) -> LevelsLoop:
    """One level further."""
    active = unfinished(loop)
    if pieces.last is None:
        return _grow_level(model, pieces, loop.config.lookahead, active, loop)
    # Two programs in one; each runs at its own levels only.
    is_last = loop.level + 1 == loop.config.depth
    grow = partial(_grow_level, model, pieces, loop.config.lookahead)
    grow_last = partial(_grow_level, model, pieces.replace(expand=pieces.last), 0)
    if loop.config.depth > 1:
        loop = run_if(active & ~is_last, grow, loop)
    return run_if(active & is_last, grow_last, loop)


def read(pieces: Pieces, loop: LevelsLoop) -> SearchResult:
    """What has been found so far."""
    config = loop.config
    values, answers = best(config.num_answers, loop.values, loop.answers)
    result = SearchResult.of(
        loop.tree,
        answers,
        values,
        frontier=jnp.where(loop.frontier >= 0, loop.nodes, NO_NODE),
        cut=loop.searching,
        at_capacity=loop.at_capacity,
        max_depth=config.depth,
        state=loop.state,
        ledger=loop.session.ledger(pieces.score).since(loop.before),
    )
    return config.rank(result)


def finish(pieces: Pieces, loop: LevelsLoop) -> tuple[State, SearchResult]:
    """Ends a search: frees what it still holds, and ranks the answers."""
    session = loop.session.free(pieces.score, loop.frontier.reshape(-1))
    return session.state, read(pieces, loop.replace(session=session))


def _grow_level(
    model: Model, pieces: Pieces, lookahead: int, active: Array, loop: LevelsLoop
) -> LevelsLoop:
    """Expands the kept thoughts, scores what they became, keeps some; nothing unless `active`."""
    config, score = loop.config, pieces.score
    shape = (loop.frontier.shape[0], config.proposals)
    frontier = jnp.where(active, loop.frontier, NO_BRANCH)
    session = loop.session
    if pieces.commit is not None:
        # A root has no thought to commit to.
        ids = jnp.where(loop.level > 0, frontier.reshape(-1), NO_BRANCH)
        session, _ = session.append(score, model, ids, pieces.commit)
    place = config.share(loop)
    session, branches, refused = _fork_proposals(score, session, frontier, place)
    place = jnp.maximum(place, 0)
    parents = jnp.take_along_axis(loop.nodes, place, axis=1)
    state, thoughts = pieces.expand(model, session.state, branches, parents.reshape(-1))
    session, scored = session.replace(state=state).score(score, model, thoughts)

    value = usable_value(scored, thoughts)
    ends = scored.answer.reshape(shape) | (loop.level + 1 == config.depth)
    before = jnp.take_along_axis(loop.path_value, place, axis=1).reshape(-1)
    path_value = aggregate(config.aggregate, before, value, loop.level == 0)
    judged = path_value
    short = refused | thoughts.failed | scored.short
    if lookahead:
        goes_on = ~ends.reshape(-1) & ~jnp.isneginf(judged)
        looking = thoughts._replace(branch=jnp.where(goes_on, branches, NO_BRANCH))
        session, judged, cut = look_ahead(model, pieces, session, looking, judged, config)
        short |= cut
    judged = judged.reshape(shape)
    outcome = outcome_of(thoughts, scored).reshape(shape)
    if config.merge:
        distinct = drop_duplicates(judged, scored.merge_key.reshape(shape))
        outcome = set_aside(outcome, judged, distinct, MERGED)
        judged = distinct

    first = 1 + loop.level * config.proposals
    keys = jax.vmap(jax.random.fold_in, (0, None))(jax.random.wrap_key_data(loop.key), loop.level)
    nodes = first + jnp.broadcast_to(jnp.arange(config.proposals), shape)
    level = Level(nodes, judged, ends, keys)
    answers, values = config.record(loop, level)
    kept = config.keep(level, pieces.select)
    dropped = jnp.where(is_chosen(kept, config.proposals), NO_BRANCH, branches.reshape(shape))

    def of_kept(field: Array, fill: float, inactive: Array) -> Array:
        picked = jnp.take_along_axis(field.reshape(shape), jnp.maximum(kept, 0), axis=1)
        return jnp.where(active, jnp.where(kept >= 0, picked, fill), inactive)

    return loop.replace(
        session=session.free(score, dropped.reshape(-1)),
        tree=record_thoughts(
            loop.tree,
            first,
            loop.level + 1,
            thoughts,
            scored,
            value.reshape(shape),
            ends,
            outcome,
        ),
        level=loop.level + active,
        frontier=of_kept(branches, NO_BRANCH, loop.frontier),
        nodes=of_kept(nodes, NO_NODE, loop.nodes),
        path_value=of_kept(path_value, 0.0, loop.path_value),
        answers=answers,
        values=values,
        at_capacity=loop.at_capacity | jnp.any(short.reshape(shape), axis=1),
    )


def _fork_proposals(
    score: AnyScorer, session: Session, frontier: Array, place: Array
) -> tuple[Session, Array, Array]:
    """Children i32[problems · proposals] of the places in the frontier, which is freed.

    Also the bool[problems · proposals] that were wanted but not made.
    """
    parents = jnp.take_along_axis(frontier, jnp.maximum(place, 0), axis=1)
    parents = jnp.where(place >= 0, parents, NO_BRANCH).reshape(-1)
    session, children = session.fork(score, parents)
    session = session.free(score, frontier.reshape(-1))
    return session, children, (parents >= 0) & (children < 0)
