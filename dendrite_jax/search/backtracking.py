"""Tree of thoughts, depth first with backtracking (Yao et al. 2023), batched over problems."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache import NO_BRANCH, Ledger
from dendrite_jax.engine import Model, State
from dendrite_jax.engine.loops import while_any
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.outcome import HOPELESS, MERGED, NO_ROOM, outcome_of, set_aside
from dendrite_jax.search.protocol import Pieces
from dendrite_jax.search.record import record_thoughts
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score.scored import mean_loglikelihood, usable_value
from dendrite_jax.search.select import Select, best, best_first, drop_duplicates, is_chosen
from dendrite_jax.search.session import AnyScorer, Session, open_session
from dendrite_jax.search.thoughts import Expand
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


@dataclass(frozen=True)
class DepthFirstConfig:
    """Static shape of the search.

    Attributes:
      proposals: thoughts sampled from each thought that is expanded.
      depth: thoughts of the longest path.
      expansions: thoughts that a problem expands, at most.
      threshold: a thought of a lower value is not gone on with, nor an answer.
      num_answers: a problem ends as soon as it has so many answers.
    """

    proposals: int = 8
    depth: int = 3
    expansions: int = 20
    threshold: float = -math.inf
    num_answers: int = 1

    def __post_init__(self) -> None:
        check_positive(self, "proposals", "depth", "expansions", "num_answers")
        if math.isnan(self.threshold):
            raise ValueError("threshold is NaN; it must be a number or an infinity")

    @property
    def stack(self) -> int:
        """Thoughts that wait to be expanded, at most."""
        return 1 + (self.depth - 1) * (self.proposals - 1)

    @property
    def num_nodes(self) -> int:
        """Nodes of a full tree, the root included."""
        return 1 + self.expansions * self.proposals

    @property
    def num_slots(self) -> int:
        """Branches that one problem holds at once, its root included."""
        return 1 + self.stack + self.proposals


class DepthFirstLoop(struct.PyTreeNode):
    """The search between two expansions."""

    session: Session
    tree: SearchTree
    expanded: Array  # i32[], expansions so far
    branches: Array  # i32[problems, stack], that wait to be expanded, the next one last
    nodes: Array  # i32[problems, stack], their nodes
    waiting: Array  # i32[problems], how many wait
    answers: Array  # i32[problems, num_answers]
    values: Array  # f32[problems, num_answers]
    at_capacity: Array  # bool[problems]
    key: Array  # u32[problems, 2], words of the problems' random keys
    before: Ledger  # of the session, before the search
    config: DepthFirstConfig = struct.field(pytree_node=False)

    @property
    def state(self) -> State:
        return self.session.state

    @property
    def searching(self) -> Array:
        """bool[problems]"""
        unanswered = jnp.any(self.answers == NO_NODE, axis=1)
        return (self.expanded < self.config.expansions) & (self.waiting > 0) & unanswered


def depth_first(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: DepthFirstConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    select: Select = best_first,
    commit: Array | None = None,
) -> tuple[State, SearchResult]:
    """Searches every problem at once: always on from the best child of the thought before.

    A thought none of whose children is good enough is a dead end; the search goes back to the last
    thought that still waits.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      expand: makes thoughts, such as `SampleThoughts`; one that is not complete is dropped.
      score: judges complete thoughts; siblings with equal merge keys are one thought.
      select: which children are gone on with, and in which order.
      commit: i32[n], tokens appended to a thought before it is expanded; none when None.

    Returns:
      The state, with every branch but the roots freed, and the result. A thought that runs out of
      blocks or slots is dropped; what was found before is kept.
    """
    pieces = Pieces(expand, score, select, commit)
    loop = start(pieces, state, roots, key, config)
    loop = while_any(unfinished, partial(advance, model, pieces), loop)
    return finish(pieces, loop)


def start(
    pieces: Pieces, state: State, roots: Array, key: Array, config: DepthFirstConfig
) -> DepthFirstLoop:
    """The search before its first expansion; see `protocol`."""
    problems = roots.shape[0]
    opened = open_session(pieces.score, state, roots, key)
    session, first = opened.session.fork(pieces.score, opened.roots)
    refused = (opened.roots >= 0) & (first < 0)
    tree = SearchTree.empty(problems, config.num_nodes, pieces.expand.max_tokens)
    root_outcome = jnp.where(refused, NO_ROOM, opened.outcome)
    shape = (problems, config.stack)
    return DepthFirstLoop(
        session=session,
        tree=tree.replace(outcome=tree.outcome.at[:, ROOT].set(root_outcome)),
        expanded=jnp.int32(0),
        branches=jnp.full(shape, NO_BRANCH, jnp.int32).at[:, 0].set(first),
        nodes=jnp.full(shape, NO_NODE, jnp.int32).at[:, 0].set(ROOT),
        waiting=(first >= 0).astype(jnp.int32),
        answers=jnp.full((problems, config.num_answers), NO_NODE, jnp.int32),
        values=jnp.full((problems, config.num_answers), -jnp.inf, jnp.float32),
        at_capacity=refused,
        key=jax.random.key_data(opened.keys),
        before=opened.before,
        config=config,
    )


def unfinished(loop: DepthFirstLoop) -> Array:
    """bool[], some problem has a thought that waits, an expansion left and an answer to find."""
    return jnp.any(loop.searching)


def advance(model: Model, pieces: Pieces, loop: DepthFirstLoop) -> DepthFirstLoop:
    """Expands the last thought that waits in each problem."""
    config, score, searching = loop.config, pieces.score, loop.searching
    shape = (loop.waiting.shape[0], config.proposals)
    problem = jnp.arange(shape[0])
    last = jnp.where(searching, loop.waiting - 1, config.stack)  # out of range: dropped
    branch = loop.branches.at[problem, last].get(mode="fill", fill_value=NO_BRANCH)
    node = loop.nodes.at[problem, last].get(mode="fill", fill_value=ROOT)
    depth = loop.tree.depth[problem, node]
    session = loop.session
    if pieces.commit is not None:
        ids = jnp.where(depth > 0, branch, NO_BRANCH)  # a root has no thought to commit to
        session, _ = session.append(score, model, ids, pieces.commit)
    parents = jnp.repeat(branch, config.proposals)
    session, children = session.fork(score, parents)
    session = session.free(score, branch)
    parent_nodes = jnp.repeat(node, config.proposals)
    state, thoughts = pieces.expand(model, session.state, children, parent_nodes)
    session, scored = session.replace(state=state).score(score, model, thoughts)

    value = usable_value(scored, thoughts).reshape(shape)
    ends = scored.answer.reshape(shape) | (depth[:, None] + 1 == config.depth)
    good = jnp.where(value >= config.threshold, value, -jnp.inf)
    distinct = drop_duplicates(good, scored.merge_key.reshape(shape))
    outcome = set_aside(outcome_of(thoughts, scored).reshape(shape), value, good, HOPELESS)
    outcome = set_aside(outcome, good, distinct, MERGED)
    first = 1 + loop.expanded * config.proposals
    tree = record_thoughts(
        loop.tree, first, depth[:, None] + 1, thoughts, scored, value, ends, outcome
    )
    nodes = first + jnp.broadcast_to(jnp.arange(config.proposals), shape)
    values, answers = best(
        config.num_answers,
        jnp.concatenate([loop.values, jnp.where(ends, distinct, -jnp.inf)], axis=1),
        jnp.concatenate([loop.answers, nodes], axis=1),
    )

    words = jax.random.wrap_key_data(loop.key)
    keys = jax.vmap(jax.random.fold_in, (0, None))(words, loop.expanded)
    chosen = pieces.select(jnp.where(ends, -jnp.inf, distinct), config.proposals, keys)
    by_problem = children.reshape(shape)
    dropped = jnp.where(is_chosen(chosen, config.proposals), NO_BRANCH, by_problem)
    short = ((parents >= 0) & (children < 0)) | thoughts.failed | scored.short
    emptied = loop.branches.at[problem, last].set(NO_BRANCH, mode="drop")
    pushed = jnp.sum(chosen >= 0, axis=1)
    return loop.replace(
        session=session.free(score, dropped.reshape(-1)),
        tree=tree,
        expanded=loop.expanded + jnp.any(searching),
        branches=_push(emptied, last, by_problem, chosen),
        nodes=_push(loop.nodes, last, nodes, chosen),
        waiting=jnp.where(searching, last + pushed, loop.waiting),
        answers=answers,
        values=values,
        at_capacity=loop.at_capacity | jnp.any(short.reshape(shape), axis=1),
    )


def read(pieces: Pieces, loop: DepthFirstLoop) -> SearchResult:
    """What has been found so far."""
    return SearchResult.of(
        loop.tree,
        loop.answers,
        loop.values,
        # Places of the stack above those that wait are left as they were.
        frontier=jnp.where(loop.branches >= 0, loop.nodes, NO_NODE),
        cut=loop.searching,
        at_capacity=loop.at_capacity,
        max_depth=loop.config.depth,
        state=loop.state,
        ledger=loop.session.ledger(pieces.score).since(loop.before),
    )


def finish(pieces: Pieces, loop: DepthFirstLoop) -> tuple[State, SearchResult]:
    """Ends a search: frees what it still holds."""
    session = loop.session.free(pieces.score, loop.branches.reshape(-1))
    return session.state, read(pieces, loop.replace(session=session))


def _push(stack: Array, place: Array, row: Array, chosen: Array) -> Array:
    """Puts the chosen of a row on stacks, from a place on; the best, which is first, comes last.

    Args:
      stack: i32[problems, stack].
      place: i32[problems].
      row: i32[problems, n].
      chosen: i32[problems, n], indices into the row, −1 where there are fewer.
    """
    count = jnp.sum(chosen >= 0, axis=1, keepdims=True)
    above = count - 1 - jnp.arange(row.shape[1])
    places = jnp.where(chosen >= 0, place[:, None] + above, stack.shape[1])
    picked = jnp.take_along_axis(row, jnp.maximum(chosen, 0), axis=1)
    return stack.at[jnp.arange(stack.shape[0])[:, None], places].set(picked, mode="drop")
