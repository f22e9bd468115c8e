"""Tree of thoughts, depth first with backtracking (Yao et al. 2023), batched over problems."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache import Ledger
from dendrite_jax.engine import Model, State
from dendrite_jax.search import branches as held_branches
from dendrite_jax.search.branches import AnyScorer, Branches
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.expand import Expand
from dendrite_jax.search.record import record_thoughts
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.scoring import mean_loglikelihood, usable_value
from dendrite_jax.search.select import Select, best, best_first, drop_duplicates, is_chosen
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


@dataclass(frozen=True)
class DepthFirstConfig:
    """Static shape of the search.

    Attributes:
      proposals: thoughts sampled from each thought that is expanded.
      depth: thoughts of the longest path.
      steps: expansions a problem, at most.
      threshold: a thought of a lower value is not gone on with, nor an answer.
      num_answers: a problem ends as soon as it has so many answers.
    """

    proposals: int = 8
    depth: int = 3
    steps: int = 20
    threshold: float = -math.inf
    num_answers: int = 1

    def __post_init__(self) -> None:
        check_positive(self, "proposals", "depth", "steps", "num_answers")
        if math.isnan(self.threshold):
            raise ValueError("threshold is NaN; it must be a number or an infinity")

    @property
    def stack(self) -> int:
        """Thoughts that wait to be expanded, at most."""
        return 1 + (self.depth - 1) * (self.proposals - 1)

    @property
    def num_nodes(self) -> int:
        """Nodes of a full tree, the root included."""
        return 1 + self.steps * self.proposals

    @property
    def num_slots(self) -> int:
        """Branches that one problem holds at once, its root included."""
        return 1 + self.stack + self.proposals


class DepthFirstLoop(NamedTuple):
    """The search between two expansions; `start`, `step` and `finish` make, advance and read it."""

    step: Array  # i32[], expansions so far
    held: Branches
    key: Array  # u32[problems, 2]
    branches: Array  # i32[problems, stack], that wait to be expanded, the next one last
    nodes: Array  # i32[problems, stack]
    waiting: Array  # i32[problems], how many wait
    answers: Array  # i32[problems, num_answers]
    values: Array  # f32[problems, num_answers]
    at_capacity: Array  # bool[problems]
    tree: SearchTree
    before: Ledger

    @property
    def searching(self) -> Array:
        """bool[problems]"""
        return (self.waiting > 0) & jnp.any(self.answers == NO_NODE, axis=1)


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
    loop = start(state, roots, key, config, expand.max_tokens, score)

    def body(loop: DepthFirstLoop) -> DepthFirstLoop:
        return step(model, loop, config, expand=expand, score=score, select=select, commit=commit)

    loop = jax.lax.while_loop(lambda loop: unfinished(loop, config), body, loop)
    return finish(loop, config, score)


def unfinished(loop: DepthFirstLoop, config: DepthFirstConfig) -> Array:
    """bool[], some problem still searches."""
    return (loop.step < config.steps) & jnp.any(loop.searching)


def finish(
    loop: DepthFirstLoop, config: DepthFirstConfig, score: AnyScorer
) -> tuple[State, SearchResult]:
    """Ends a search: frees what it still holds."""
    held = held_branches.free(score, loop.held, loop.branches.reshape(-1))
    return held.state, SearchResult.of(
        loop.tree,
        loop.answers,
        loop.values,
        loop.at_capacity,
        max_depth=config.depth,
        state=held.state,
        ledger=held_branches.ledger(score, held).since(loop.before),
    )


def start(
    state: State,
    roots: Array,
    key: Array,
    config: DepthFirstConfig,
    thought_tokens: int,
    score: AnyScorer = mean_loglikelihood,
) -> DepthFirstLoop:
    """The search before its first expansion; arguments as in `depth_first`."""
    problems = roots.shape[0]
    held, keys, first, refused, before = held_branches.start(score, state, roots, key)
    none = jnp.full((problems, config.stack), NO_NODE, jnp.int32)
    return DepthFirstLoop(
        step=jnp.int32(0),
        held=held,
        key=keys,
        branches=none.at[:, 0].set(first),
        nodes=none.at[:, 0].set(ROOT),
        waiting=(first >= 0).astype(jnp.int32),
        answers=jnp.full((problems, config.num_answers), NO_NODE, jnp.int32),
        values=jnp.full((problems, config.num_answers), -jnp.inf, jnp.float32),
        at_capacity=refused,
        tree=SearchTree.empty(problems, config.num_nodes, thought_tokens),
        before=before,
    )


def step(
    model: Model,
    loop: DepthFirstLoop,
    config: DepthFirstConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    select: Select = best_first,
    commit: Array | None = None,
) -> DepthFirstLoop:
    """Expands the last thought that waits in each problem."""
    shape = (loop.waiting.shape[0], config.proposals)
    problem = jnp.arange(shape[0])
    last = jnp.where(loop.searching, loop.waiting - 1, config.stack)  # out of range: dropped
    branch = loop.branches.at[problem, last].get(mode="fill", fill_value=-1)
    node = loop.nodes.at[problem, last].get(mode="fill", fill_value=ROOT)
    depth = loop.tree.depth[problem, node]
    held = loop.held
    if commit is not None:
        ids = jnp.where(depth > 0, branch, -1)  # a root has no thought
        held, _ = held_branches.append(score, model, held, ids, commit)
    parents = jnp.repeat(branch, config.proposals)
    held, children = held_branches.fork(score, held, parents)
    held = held_branches.free(score, held, branch)
    state, thoughts = expand(model, held.state, children, jnp.repeat(node, config.proposals))
    held, scored = held_branches.score(score, model, held.replace(state=state), thoughts)
    value = usable_value(scored, thoughts).reshape(shape)
    ends = scored.answer.reshape(shape) | (depth[:, None] + 1 == config.depth)
    first = 1 + loop.step * config.proposals
    tree, nodes = record_thoughts(
        loop.tree, first, depth[:, None] + 1, thoughts, scored, value, ends
    )

    good = jnp.where(value >= config.threshold, value, -jnp.inf)
    good = drop_duplicates(good, scored.merge_key.reshape(shape))
    values, answers = best(
        config.num_answers,
        jnp.concatenate([loop.values, jnp.where(ends, good, -jnp.inf)], axis=1),
        jnp.concatenate([loop.answers, nodes], axis=1),
    )
    keys = jax.vmap(jax.random.fold_in, (0, None))(jax.random.wrap_key_data(loop.key), loop.step)
    chosen = select(jnp.where(ends, -jnp.inf, good), config.proposals, keys)
    by_problem = children.reshape(shape)
    dropped = jnp.where(is_chosen(chosen, config.proposals), -1, by_problem)
    short = ((parents >= 0) & (children < 0)) | thoughts.failed | scored.short
    emptied = loop.branches.at[problem, last].set(-1, mode="drop")
    pushed = jnp.sum(chosen >= 0, axis=1)
    return loop._replace(
        step=loop.step + 1,
        held=held_branches.free(score, held, dropped.reshape(-1)),
        branches=_push(emptied, last, by_problem, chosen),
        nodes=_push(loop.nodes, last, nodes, chosen),
        waiting=jnp.where(loop.searching, last + pushed, loop.waiting),
        answers=answers,
        values=values,
        at_capacity=loop.at_capacity | jnp.any(short.reshape(shape), axis=1),
        tree=tree,
    )


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
