"""Tree of thoughts, breadth first (Yao et al. 2023), batched over problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import engine
from dendrite_jax.engine import PLAIN, GenerateConfig, Model, Sampling, State, StopRules
from dendrite_jax.engine.stopping import STOP_STRING, STOP_TOKEN
from dendrite_jax.search.scoring import Scorer, Thoughts, mean_loglikelihood
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


@dataclass(frozen=True)
class TreeOfThoughtsConfig:
    """Static shape of the search.

    Attributes:
      breadth: thoughts kept at each level.
      proposals: thoughts sampled at each level, shared out evenly among those kept before.
      depth: levels.
      max_thought_tokens: a thought that has not met a stop rule by then is dropped.
    """

    breadth: int = 5
    proposals: int = 40
    depth: int = 3
    max_thought_tokens: int = 32

    def __post_init__(self) -> None:
        for field in ("breadth", "proposals", "depth", "max_thought_tokens"):
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


class TreeOfThoughtsResult(NamedTuple):
    """The tree, and the best answers first."""

    tree: SearchTree
    answers: Array  # i32[problems, breadth], nodes of the tree; NO_NODE where there are fewer
    values: Array  # f32[problems, breadth], their values; −inf where there is none


class TreeOfThoughtsLoop(NamedTuple):
    """The search between two levels; `start`, `grow` and `result` make, advance and read it."""

    level: Array  # i32[], levels grown
    state: State
    frontier: Array  # i32[problems, breadth], branches kept; negative where there are fewer
    nodes: Array  # i32[problems, breadth], their nodes
    answers: Array  # i32[problems, breadth]
    values: Array  # f32[problems, breadth]
    tree: SearchTree


def tree_of_thoughts(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: TreeOfThoughtsConfig,
    *,
    stop: StopRules,
    score: Scorer = mean_loglikelihood,
    sampling: Sampling = PLAIN,
    commit: Array | None = None,
) -> tuple[State, TreeOfThoughtsResult]:
    """Searches every problem at once; a thought is what the model samples up to a stop rule.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      stop: what ends a thought.
      score: judges complete thoughts.
      sampling: how thoughts are sampled.
      commit: i32[n], tokens appended to a kept thought before it is expanded; none when None.

    Returns:
      The state, with every branch but the roots freed, and the result. A thought that runs out of
      blocks or slots is dropped; what was found before is kept.
    """
    loop = start(state, roots, key, config)

    def grow_level(loop: TreeOfThoughtsLoop) -> TreeOfThoughtsLoop:
        return grow(model, loop, config, stop=stop, score=score, sampling=sampling, commit=commit)

    def unfinished(loop: TreeOfThoughtsLoop) -> Array:
        return (loop.level < config.depth) & jnp.any(loop.frontier >= 0)

    return result(jax.lax.while_loop(unfinished, grow_level, loop))


def start(
    state: State, roots: Array, key: Array, config: TreeOfThoughtsConfig
) -> TreeOfThoughtsLoop:
    """The search before its first level; arguments as in `tree_of_thoughts`."""
    problems = roots.shape[0]
    keys = key if key.ndim else jax.random.split(key, problems)
    state = engine.set_keys(state, roots, keys)
    state, first = engine.fork(state, roots)
    shape = (problems, config.breadth)
    none = jnp.full(shape, NO_NODE, jnp.int32)
    return TreeOfThoughtsLoop(
        level=jnp.int32(0),
        state=state,
        frontier=none.at[:, 0].set(first),
        nodes=none.at[:, 0].set(ROOT),
        answers=none,
        values=jnp.full(shape, -jnp.inf, jnp.float32),
        tree=SearchTree.empty(problems, config.num_nodes, config.max_thought_tokens),
    )


def grow(
    model: Model,
    loop: TreeOfThoughtsLoop,
    config: TreeOfThoughtsConfig,
    *,
    stop: StopRules,
    score: Scorer = mean_loglikelihood,
    sampling: Sampling = PLAIN,
    commit: Array | None = None,
) -> TreeOfThoughtsLoop:
    """One level: expand the kept thoughts, score what they became, keep the best."""
    problems = loop.frontier.shape[0]
    state = loop.state
    if commit is not None:
        state = _commit(model, state, loop, commit)
    state, branches, parent_nodes = _fork_proposals(state, loop, config)
    state, thoughts = _sample_thoughts(
        model, state, branches, parent_nodes.reshape(-1), config, sampling, stop
    )
    scored = score(model, state, thoughts)
    shape = (problems, config.proposals)
    usable = (branches >= 0) & thoughts.complete
    value = jnp.where(usable, scored.value, -jnp.inf).reshape(shape)

    first = 1 + loop.level * config.proposals
    tree = loop.tree.write(
        first,
        parent=jnp.where((branches >= 0).reshape(shape), parent_nodes, NO_NODE),
        depth=jnp.broadcast_to(loop.level + 1, shape),
        tokens=thoughts.tokens.reshape(*shape, -1),
        raw_logprob=thoughts.raw_logprob.reshape(shape),
        logprob=thoughts.logprob.reshape(shape),
        value=value,
    )
    nodes = first + jnp.broadcast_to(jnp.arange(config.proposals), shape)
    distinct = _drop_duplicates(value, scored.merge_key.reshape(shape))
    ends = scored.answer.reshape(shape) | (loop.level + 1 == config.depth)

    values, answers = _best(
        config.breadth,
        jnp.concatenate([loop.values, jnp.where(ends, distinct, -jnp.inf)], axis=1),
        jnp.concatenate([loop.answers, nodes], axis=1),
    )
    _, kept = _best(
        config.breadth,
        jnp.where(ends, -jnp.inf, distinct),
        jnp.broadcast_to(jnp.arange(config.proposals), shape),
    )
    chosen = jnp.maximum(kept, 0)
    by_problem = branches.reshape(shape)
    frontier = jnp.where(kept >= 0, jnp.take_along_axis(by_problem, chosen, axis=1), -1)
    is_kept = (
        jnp.zeros(shape, bool)
        .at[jnp.arange(problems)[:, None], jnp.where(kept >= 0, kept, config.proposals)]
        .set(True, mode="drop")
    )
    state = engine.free(state, jnp.where(is_kept, -1, by_problem).reshape(-1))
    return TreeOfThoughtsLoop(
        level=loop.level + 1,
        state=state,
        frontier=frontier,
        nodes=jnp.where(kept >= 0, jnp.take_along_axis(nodes, chosen, axis=1), NO_NODE),
        answers=answers,
        values=values,
        tree=tree,
    )


def result(loop: TreeOfThoughtsLoop) -> tuple[State, TreeOfThoughtsResult]:
    """Ends a search: frees what it still holds."""
    state = engine.free(loop.state, loop.frontier.reshape(-1))
    return state, TreeOfThoughtsResult(loop.tree, loop.answers, loop.values)


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
) -> tuple[State, Array, Array]:
    """Children i32[problems · proposals] of the frontier, which is freed; their parents' nodes."""
    alive = jnp.sum(loop.frontier >= 0, axis=1, keepdims=True)  # kept thoughts stand first
    share = jnp.arange(config.proposals) % jnp.maximum(alive, 1)
    parents = jnp.take_along_axis(loop.frontier, share, axis=1)
    state, children = engine.fork(state, parents.reshape(-1))
    state = engine.free(state, loop.frontier.reshape(-1))
    return state, children, jnp.take_along_axis(loop.nodes, share, axis=1)


def _sample_thoughts(
    model: Model,
    state: State,
    branches: Array,
    parents: Array,
    config: TreeOfThoughtsConfig,
    sampling: Sampling,
    stop: StopRules,
) -> tuple[State, Thoughts]:
    shape = GenerateConfig(max_new_tokens=config.max_thought_tokens)
    state, out = engine.generate(model, state, branches, shape, sampling, stop)
    return state, Thoughts(
        branch=branches,
        tokens=out.tokens,
        length=out.length,
        complete=(out.finish == STOP_TOKEN) | (out.finish == STOP_STRING),
        raw_logprob=jnp.sum(out.raw_logprobs, axis=1),
        logprob=jnp.sum(out.logprobs, axis=1),
        parent=parents,
    )


def _drop_duplicates(value: Array, merge_key: Array) -> Array:
    """Values [problems, n] with −inf for a thought whose key a better or earlier one has."""
    order = jnp.argsort(-value, axis=1, stable=True)
    ranked = jnp.take_along_axis(merge_key, order, axis=1)
    n = value.shape[1]
    earlier = jnp.tril(jnp.ones((n, n), bool), k=-1)
    repeated = jnp.any((ranked[:, :, None] == ranked[:, None, :]) & earlier, axis=2)
    problem = jnp.arange(value.shape[0])[:, None]
    repeated = jnp.zeros_like(repeated).at[problem, order].set(repeated)
    return jnp.where(repeated, -jnp.inf, value)


def _best(k: int, value: Array, item: Array) -> tuple[Array, Array]:
    """The k best values [problems, k], best first, and their items; NO_NODE where value is −inf."""
    values, index = jax.lax.top_k(value, k)
    items = jnp.take_along_axis(item, index, axis=1)
    return values, jnp.where(jnp.isneginf(values), NO_NODE, items)
