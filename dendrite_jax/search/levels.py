"""Search level by level: what tree of thoughts, step beams, DVTS, REBASE and plain samples share.

A level grows every kept thought by one more, as many times as it is given a share of the level's
proposals, scores what they became and keeps some. The searches differ in their `Rules` only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache import Ledger
from dendrite_jax.engine import Model, State
from dendrite_jax.search import branches as held_branches
from dendrite_jax.search.aggregate import Aggregate, aggregate
from dendrite_jax.search.branches import AnyScorer, Branches
from dendrite_jax.search.expand import Expand
from dendrite_jax.search.look_ahead import look_ahead
from dendrite_jax.search.record import record_thoughts
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.scoring import mean_loglikelihood, usable_value
from dendrite_jax.search.select import best, drop_duplicates, is_chosen
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


class Levels(Protocol):
    """The static shape of a search by levels; the configs of such searches are one."""

    @property
    def kept(self) -> int:
        """Thoughts kept at a level, at most."""
        ...

    @property
    def proposals(self) -> int:
        """Thoughts sampled at a level."""
        ...

    @property
    def depth(self) -> int:
        """Levels."""
        ...

    @property
    def num_answers(self) -> int:
        """Answers returned, at most."""
        ...

    @property
    def num_nodes(self) -> int:
        """Nodes of a full tree, the root included."""
        ...


class LevelSizes:
    """The capacities that follow from a config's `Levels`."""

    @property
    def num_nodes(self: Levels) -> int:
        """Nodes of a full tree, the root included."""
        return 1 + self.depth * self.proposals

    @property
    def num_slots(self: Levels) -> int:
        """Branches that one problem holds at once, its root included."""
        return 1 + self.kept + self.proposals


class Level(NamedTuple):
    """What was grown at one level, as the rules see it."""

    nodes: Array  # i32[problems, proposals]
    value: Array  # f32[problems, proposals], of the whole path; −inf for no candidate
    ends: Array  # bool[problems, proposals], the thought ends its path
    keys: Array  # a typed key array [problems], for a random choice


class LevelsLoop(NamedTuple):
    """The search between two levels; `start`, `grow` and `finish` make, advance and read it."""

    level: Array  # i32[], levels grown
    held: Branches
    key: Array  # u32[problems, 2]
    frontier: Array  # i32[problems, kept], branches kept; negative where there are fewer
    nodes: Array  # i32[problems, kept], their nodes
    path_value: Array  # f32[problems, kept], their values, aggregated along the path
    answers: Array  # i32[problems, num_answers]
    values: Array  # f32[problems, num_answers]
    at_capacity: Array  # bool[problems]
    tree: SearchTree
    before: Ledger

    @property
    def state(self) -> State:
        return self.held.state


Share = Callable[[LevelsLoop], Array]
"""loop → i32[problems, proposals]: the place in the frontier that each grows from; −1 for none."""
Keep = Callable[[Level], Array]
"""level → i32[problems, kept]: which proposals go on; −1 for none."""
Record = Callable[[LevelsLoop, Level], tuple[Array, Array]]
"""(loop before the level, level) → its new `answers` and `values`."""


def best_ends(loop: LevelsLoop, level: Level) -> tuple[Array, Array]:
    """Records the best thoughts that end their path, of all levels so far."""
    values, answers = best(
        loop.answers.shape[1],
        jnp.concatenate([loop.values, jnp.where(level.ends, level.value, -jnp.inf)], axis=1),
        jnp.concatenate([loop.answers, level.nodes], axis=1),
    )
    return answers, values


class Rules(NamedTuple):
    """What makes one search by levels different from another."""

    share: Share
    keep: Keep
    record: Record = best_ends
    aggregate: Aggregate = "last"
    merge: bool = False  # thoughts of one level with equal merge keys
    lookahead: int = 0  # greedy thoughts that a value looks ahead, but at the last level


def search(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: Levels,
    rules: Rules,
    *,
    expand: Expand,
    score: AnyScorer,
    commit: Array | None = None,
    last: Expand | None = None,
) -> tuple[State, SearchResult]:
    """Searches every problem at once, level by level.

    Args:
      model: the model.
      state: the engine state; donate it under jit.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      rules: which search it is.
      expand: makes thoughts; one that is not complete is dropped.
      score: judges complete thoughts.
      commit: i32[n], tokens appended to a kept thought before it is expanded; none when None.
      last: makes the thoughts of the last level instead of `expand`.

    Returns:
      The state, with every branch but the roots freed, and the result.
    """
    thought_tokens = max(expand.max_tokens, last.max_tokens if last is not None else 0)
    loop = start(state, roots, key, config, thought_tokens, score)
    looped = config.depth - (last is not None)

    def grow_by(expand: Expand, rules: Rules) -> Callable[[LevelsLoop], LevelsLoop]:
        return lambda loop: grow(
            model, loop, config, rules, expand=expand, score=score, commit=commit
        )

    def unfinished(loop: LevelsLoop) -> Array:
        return (loop.level < looped) & jnp.any(loop.frontier >= 0)

    loop = jax.lax.while_loop(unfinished, grow_by(expand, rules), loop)
    if last is not None:
        grow_last = grow_by(last, rules._replace(lookahead=0))
        loop = grow_last(loop._replace(level=jnp.int32(looped)))
    return finish(loop, config, score)


def start(
    state: State,
    roots: Array,
    key: Array,
    config: Levels,
    thought_tokens: int,
    score: AnyScorer = mean_loglikelihood,
) -> LevelsLoop:
    """The search before its first level; arguments as in `search`."""
    problems = roots.shape[0]
    held, keys, first, refused, before = held_branches.start(score, state, roots, key)
    none = jnp.full((problems, config.kept), NO_NODE, jnp.int32)
    return LevelsLoop(
        level=jnp.int32(0),
        held=held,
        key=keys,
        frontier=none.at[:, 0].set(first),
        nodes=none.at[:, 0].set(ROOT),
        path_value=jnp.zeros(none.shape, jnp.float32),
        answers=jnp.full((problems, config.num_answers), NO_NODE, jnp.int32),
        values=jnp.full((problems, config.num_answers), -jnp.inf, jnp.float32),
        at_capacity=refused,
        tree=SearchTree.empty(problems, config.num_nodes, thought_tokens),
        before=before,
    )


def grow(
    model: Model,
    loop: LevelsLoop,
    config: Levels,
    rules: Rules,
    *,
    expand: Expand,
    score: AnyScorer,
    commit: Array | None = None,
) -> LevelsLoop:
    """One level: expand the kept thoughts, score what they became, keep some of them."""
    problems = loop.frontier.shape[0]
    shape = (problems, config.proposals)
    held = loop.held
    if commit is not None:
        ids = jnp.where(loop.level > 0, loop.frontier.reshape(-1), -1)  # a root has no thought
        held, _ = held_branches.append(score, model, held, ids, commit)
    place = rules.share(loop)
    held, branches, refused = _fork_proposals(score, held, loop.frontier, place)
    place = jnp.maximum(place, 0)
    parent_nodes = jnp.take_along_axis(loop.nodes, place, axis=1)
    state, thoughts = expand(model, held.state, branches, parent_nodes.reshape(-1))
    held, scored = held_branches.score(score, model, held.replace(state=state), thoughts)
    value = usable_value(scored, thoughts)
    ends = scored.answer.reshape(shape) | (loop.level + 1 == config.depth)
    tree, nodes = record_thoughts(
        loop.tree,
        1 + loop.level * config.proposals,
        loop.level + 1,
        thoughts,
        scored,
        value.reshape(shape),
        ends,
    )
    before = jnp.take_along_axis(loop.path_value, place, axis=1).reshape(-1)
    path_value = aggregate(rules.aggregate, before, value, loop.level == 0)
    value = path_value
    short = refused | thoughts.failed | scored.short
    if rules.lookahead:
        goes_on = ~ends.reshape(-1) & ~jnp.isneginf(value)
        held, value, cut = look_ahead(
            model,
            held,
            thoughts._replace(branch=jnp.where(goes_on, branches, -1)),
            value,
            rules.lookahead,
            rules.aggregate,
            expand=expand,
            score=score,
            commit=commit,
        )
        short |= cut
    value = value.reshape(shape)
    if rules.merge:
        value = drop_duplicates(value, scored.merge_key.reshape(shape))
    level = Level(
        nodes=nodes,
        value=value,
        ends=ends,
        keys=jax.vmap(jax.random.fold_in, (0, None))(
            jax.random.wrap_key_data(loop.key), loop.level
        ),
    )
    answers, values = rules.record(loop, level)
    kept = rules.keep(level)
    dropped = jnp.where(is_chosen(kept, config.proposals), -1, branches.reshape(shape))

    def of_kept(field: Array, fill: float) -> Array:
        return jnp.where(kept >= 0, jnp.take_along_axis(field, jnp.maximum(kept, 0), 1), fill)

    return loop._replace(
        level=loop.level + 1,
        held=held_branches.free(score, held, dropped.reshape(-1)),
        frontier=of_kept(branches.reshape(shape), -1),
        nodes=of_kept(level.nodes, NO_NODE),
        path_value=of_kept(path_value.reshape(shape), 0.0),
        answers=answers,
        values=values,
        at_capacity=loop.at_capacity | jnp.any(short.reshape(shape), axis=1),
        tree=tree,
    )


def finish(loop: LevelsLoop, config: Levels, score: AnyScorer) -> tuple[State, SearchResult]:
    """Ends a search: frees what it still holds, and ranks the answers."""
    held = held_branches.free(score, loop.held, loop.frontier.reshape(-1))
    values, answers = best(config.num_answers, loop.values, loop.answers)
    return held.state, SearchResult.of(
        loop.tree,
        answers,
        values,
        loop.at_capacity,
        max_depth=config.depth,
        state=held.state,
        ledger=held_branches.ledger(score, held).since(loop.before),
    )


def _fork_proposals(
    score: AnyScorer, held: Branches, frontier: Array, place: Array
) -> tuple[Branches, Array, Array]:
    """Children i32[problems · proposals] of the places in the frontier, which is freed.

    Also the bool[problems · proposals] that were wanted but not made.
    """
    parents = jnp.take_along_axis(frontier, jnp.maximum(place, 0), axis=1)
    parents = jnp.where(place >= 0, parents, -1).reshape(-1)
    held, children = held_branches.fork(score, held, parents)
    held = held_branches.free(score, held, frontier.reshape(-1))
    return held, children, (parents >= 0) & (children < 0)
