"""Tree of thoughts, breadth first (Yao et al. 2023), batched over problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import engine
from dendrite_jax.cache import Ledger
from dendrite_jax.engine import Model, State
from dendrite_jax.search.expand import Expand
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.scoring import Scorer, mean_loglikelihood, usable_value
from dendrite_jax.search.select import Select, best, best_first, drop_duplicates, is_chosen
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


@dataclass(frozen=True)
class TreeOfThoughtsConfig:
    """Static shape of the search.

    Attributes:
      breadth: thoughts kept at each level.
      proposals: thoughts sampled at each level, shared out evenly among those kept before.
      depth: levels.
    """

    breadth: int = 5
    proposals: int = 40
    depth: int = 3

    def __post_init__(self) -> None:
        for field in ("breadth", "proposals", "depth"):
            value = getattr(self, field)
            if value < 1:
                raise ValueError(f"{field} is {value}; it must be at least 1")
        if self.proposals < self.breadth:
            raise ValueError(
                f"proposals is {self.proposals}; it must be at least the breadth, {self.breadth}"
            )

    @property
    def num_nodes(self) -> int:
        """Nodes of a full tree, the root included."""
        return 1 + self.depth * self.proposals

    @property
    def num_slots(self) -> int:
        """Branches that one problem holds at once, its root included."""
        return 1 + self.breadth + self.proposals


class TreeOfThoughtsLoop(NamedTuple):
    """The search between two levels; `start`, `grow` and `result` make, advance and read it."""

    level: Array  # i32[], levels grown
    state: State
    key: Array  # u32[problems, 2]
    frontier: Array  # i32[problems, breadth], branches kept; negative where there are fewer
    nodes: Array  # i32[problems, breadth], their nodes
    answers: Array  # i32[problems, breadth]
    values: Array  # f32[problems, breadth]
    at_capacity: Array  # bool[problems]
    tree: SearchTree
    before: Ledger


def tree_of_thoughts(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: TreeOfThoughtsConfig,
    *,
    expand: Expand,
    score: Scorer = mean_loglikelihood,
    select: Select = best_first,
    commit: Array | None = None,
) -> tuple[State, SearchResult]:
    """Searches every problem at once, level by level.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      expand: makes thoughts, such as `SampleThoughts`; one that is not complete is dropped.
      score: judges complete thoughts.
      select: which thoughts of a level are kept.
      commit: i32[n], tokens appended to a kept thought before it is expanded; none when None.

    Returns:
      The state, with every branch but the roots freed, and the result. A thought that runs out of
      blocks or slots is dropped; what was found before is kept.
    """
    loop = start(state, roots, key, config, expand.max_tokens)

    def grow_level(loop: TreeOfThoughtsLoop) -> TreeOfThoughtsLoop:
        return grow(model, loop, config, expand=expand, score=score, select=select, commit=commit)

    def unfinished(loop: TreeOfThoughtsLoop) -> Array:
        return (loop.level < config.depth) & jnp.any(loop.frontier >= 0)

    return result(jax.lax.while_loop(unfinished, grow_level, loop), config)


def start(
    state: State, roots: Array, key: Array, config: TreeOfThoughtsConfig, thought_tokens: int
) -> TreeOfThoughtsLoop:
    """The search before its first level; arguments as in `tree_of_thoughts`."""
    problems = roots.shape[0]
    before = state.cache.ledger
    keys = key if key.ndim else jax.random.split(key, problems)
    state = engine.set_keys(state, roots, keys)
    state, first = engine.fork(state, roots)
    shape = (problems, config.breadth)
    none = jnp.full(shape, NO_NODE, jnp.int32)
    return TreeOfThoughtsLoop(
        level=jnp.int32(0),
        state=state,
        key=jax.random.key_data(keys),
        frontier=none.at[:, 0].set(first),
        nodes=none.at[:, 0].set(ROOT),
        answers=none,
        values=jnp.full(shape, -jnp.inf, jnp.float32),
        at_capacity=(roots >= 0) & (first < 0),
        tree=SearchTree.empty(problems, config.num_nodes, thought_tokens),
        before=before,
    )


def grow(
    model: Model,
    loop: TreeOfThoughtsLoop,
    config: TreeOfThoughtsConfig,
    *,
    expand: Expand,
    score: Scorer = mean_loglikelihood,
    select: Select = best_first,
    commit: Array | None = None,
) -> TreeOfThoughtsLoop:
    """One level: expand the kept thoughts, score what they became, select among them."""
    problems = loop.frontier.shape[0]
    state = loop.state
    if commit is not None:
        state = _commit(model, state, loop, commit)
    state, branches, parent_nodes, refused = _fork_proposals(state, loop, config)
    state, thoughts = expand(model, state, branches, parent_nodes.reshape(-1))
    scored = score(model, state, thoughts)
    shape = (problems, config.proposals)
    value = usable_value(scored, thoughts).reshape(shape)
    ends = scored.answer | engine.has_ended(state, thoughts.branch)
    ends = ends.reshape(shape) | (loop.level + 1 == config.depth)

    first = 1 + loop.level * config.proposals
    made = (branches >= 0).reshape(shape)
    tree = loop.tree.write(
        first,
        parent=jnp.where(made, parent_nodes, NO_NODE),
        depth=jnp.broadcast_to(loop.level + 1, shape),
        tokens=thoughts.tokens.reshape(*shape, -1),
        raw_logprob=thoughts.raw_logprob.reshape(shape),
        logprob=thoughts.logprob.reshape(shape),
        value=value,
        visits=made.astype(jnp.int32),
        terminal=made & ends,
    )
    nodes = first + jnp.broadcast_to(jnp.arange(config.proposals), shape)
    distinct = drop_duplicates(value, scored.merge_key.reshape(shape))
    values, answers = best(
        config.breadth,
        jnp.concatenate([loop.values, jnp.where(ends, distinct, -jnp.inf)], axis=1),
        jnp.concatenate([loop.answers, nodes], axis=1),
    )
    keys = jax.vmap(jax.random.fold_in, (0, None))(jax.random.wrap_key_data(loop.key), loop.level)
    kept = select(jnp.where(ends, -jnp.inf, distinct), config.breadth, keys)
    chosen = jnp.maximum(kept, 0)
    by_problem = branches.reshape(shape)
    dropped = jnp.where(is_chosen(kept, config.proposals), -1, by_problem)
    return loop._replace(
        level=loop.level + 1,
        state=engine.free(state, dropped.reshape(-1)),
        frontier=jnp.where(kept >= 0, jnp.take_along_axis(by_problem, chosen, axis=1), -1),
        nodes=jnp.where(kept >= 0, jnp.take_along_axis(nodes, chosen, axis=1), NO_NODE),
        answers=answers,
        values=values,
        at_capacity=loop.at_capacity | jnp.any((refused | thoughts.failed).reshape(shape), axis=1),
        tree=tree,
    )


def result(loop: TreeOfThoughtsLoop, config: TreeOfThoughtsConfig) -> tuple[State, SearchResult]:
    """Ends a search: frees what it still holds."""
    state = engine.free(loop.state, loop.frontier.reshape(-1))
    return state, SearchResult.of(
        loop.tree,
        loop.answers,
        loop.values,
        loop.at_capacity,
        max_depth=config.depth,
        state=state,
        before=loop.before,
    )


def _commit(model: Model, state: State, loop: TreeOfThoughtsLoop, commit: Array) -> State:
    """Appends the commit tokens to the kept thoughts; the roots of the first level have none."""
    branches = loop.frontier.reshape(-1)
    tokens = jnp.broadcast_to(commit, (branches.shape[0], commit.shape[0]))
    count = jnp.where(loop.level > 0, commit.shape[0], 0)
    ids = jnp.where(loop.level > 0, branches, -1)
    state, _ = engine.prefill(model, state, ids, tokens, jnp.broadcast_to(count, ids.shape))
    return state


def _fork_proposals(
    state: State, loop: TreeOfThoughtsLoop, config: TreeOfThoughtsConfig
) -> tuple[State, Array, Array, Array]:
    """Children i32[problems · proposals] of the frontier, which is freed.

    Also their parents' nodes i32[problems, proposals], and the bool[problems · proposals] that were
    wanted but not made.
    """
    alive = jnp.sum(loop.frontier >= 0, axis=1, keepdims=True)  # kept thoughts stand first
    share = jnp.arange(config.proposals) % jnp.maximum(alive, 1)
    parents = jnp.take_along_axis(loop.frontier, share, axis=1)
    parents = parents.reshape(-1)
    state, children = engine.fork(state, parents)
    state = engine.free(state, loop.frontier.reshape(-1))
    refused = (parents >= 0) & (children < 0)
    return state, children, jnp.take_along_axis(loop.nodes, share, axis=1), refused
