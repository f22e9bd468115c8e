"""Making the children of tree nodes with the engine: fork, grow, score, weigh."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.engine import NO_TOKEN, Model, State
from dendrite_jax.search import branches as held_branches
from dendrite_jax.search.branches import AnyScorer, Branches
from dendrite_jax.search.expand import Expand, Thoughts
from dendrite_jax.search.mcts.growth import Expansion
from dendrite_jax.search.scoring import Scored, usable_value
from dendrite_jax.search.select import drop_duplicates
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


class Prior(Protocol):
    """A pure function: how likely selection takes each thought to be the best of its siblings."""

    def __call__(self, thoughts: Thoughts, scored: Scored) -> Array:
        """Logits f32[lanes]; not finite: never taken."""
        ...


def even_prior(thoughts: Thoughts, scored: Scored) -> Array:
    """All siblings alike: they were sampled, so the likely ones are there more often already."""
    del scored
    return jnp.zeros_like(thoughts.raw_logprob)


def likelihood_prior(thoughts: Thoughts, scored: Scored) -> Array:
    """The model's own probability of each thought; for children that were not sampled."""
    del scored
    return thoughts.raw_logprob


class ValuePrior(struct.PyTreeNode):
    """The scorer's values as logits, such as its log-probabilities."""

    temperature: Array | float = 1.0  # > 0

    def __call__(self, thoughts: Thoughts, scored: Scored) -> Array:
        return scored.value / self.temperature


class Worth(Protocol):
    """A pure, growing function from a scorer's values f32[...] to what is averaged."""

    def __call__(self, value: Array, /) -> Array: ...


class Pieces(NamedTuple):
    """What expands nodes."""

    expand: Expand
    score: AnyScorer
    prior: Prior
    worth: Worth
    commit: Array | None  # i32[n]


class Shape(NamedTuple):
    """What is static in an expansion."""

    num_children: int  # of the root, and rows of every family
    inner_children: int  # of other nodes
    max_depth: int  # of nodes


class Held(NamedTuple):
    """What a tree holds beside its statistics."""

    branches: Branches
    record: SearchTree
    branch: Array  # i32[problems, nodes], of each node that may be expanded; −1 for none
    bare_root: Array  # bool[problems], the root is a prompt, to which nothing is committed

    @property
    def state(self) -> State:
        return self.branches.state


def make_children(
    model: Model, held: Held, nodes: Array, first_child: Array, pieces: Pieces, shape: Shape
) -> tuple[Held, Expansion]:
    """Forks and grows the children of nodes i32[problems, batch]; the core's `Expand`.

    Rejected, merged and final children give their branches back; their rows stay recorded.
    """
    problem = jnp.arange(nodes.shape[0])[:, None]
    node = jnp.maximum(nodes, ROOT)
    parents = jnp.where(nodes == NO_NODE, -1, held.branch[problem, node])
    branches, ready = _commit(model, held, nodes, parents, pieces)
    none = _no_children((*nodes.shape, shape.num_children), held.record.tokens.shape[2])
    branches, grown = _grow(
        model, branches, jnp.where(ready, parents, -1), nodes, pieces, shape, none
    )
    depth = held.record.depth[problem, node] + 1
    ends = grown.answer | (depth == shape.max_depth)[..., None]
    dropped = jnp.where(grown.exists & ~ends, -1, grown.branch)
    branches = held_branches.free(pieces.score, branches, dropped.reshape(-1))

    rows = first_child[..., None] + jnp.arange(shape.num_children)
    rows = jnp.where((nodes == NO_NODE)[..., None], held.branch.shape[1], rows)
    made = grown.branch >= 0

    def write(field: Array, values: Array) -> Array:
        return field.at[problem[..., None], rows].set(values, mode="drop")

    record = held.record
    record = record.replace(
        parent=write(record.parent, jnp.where(made, nodes[..., None], NO_NODE)),
        depth=write(record.depth, jnp.where(made, depth[..., None], 0)),
        tokens=write(record.tokens, grown.tokens),
        raw_logprob=write(record.raw_logprob, grown.raw_logprob),
        logprob=write(record.logprob, grown.logprob),
        value=write(record.value, grown.value),
        merge_key=write(record.merge_key, grown.merge_key),
        terminal=write(record.terminal, made & ends),
    )
    expansion = Expansion(
        prior_logits=jnp.where(grown.exists, grown.prior, -jnp.inf),
        value=jnp.where(grown.exists, grown.worth, 0.0),
        terminal=ends,
        out_of_room=jnp.any(grown.out_of_room, axis=2) | ((parents >= 0) & ~ready),
    )
    branch = write(held.branch, jnp.where(grown.exists & ~ends, grown.branch, -1))
    return held._replace(branches=branches, record=record, branch=branch), expansion


class _Grown(NamedTuple):
    """Children, each field [problems, batch, num_children, …]."""

    branch: Array  # i32, −1 where none was made
    tokens: Array  # i32[…, thought_tokens]
    raw_logprob: Array  # f32
    logprob: Array  # f32
    value: Array  # f32, the scorer's; −inf rejects
    merge_key: Array  # i32
    worth: Array  # f32
    prior: Array  # f32
    answer: Array  # bool
    exists: Array  # bool, selection may take it
    out_of_room: Array  # bool, wanted but not made, or not finished


def _grow(
    model: Model,
    branches: Branches,
    parents: Array,
    nodes: Array,
    pieces: Pieces,
    shape: Shape,
    none: _Grown,
) -> tuple[Branches, _Grown]:
    """Forks and grows the children of branches i32[problems, batch], −1 for none."""
    count = jnp.where(nodes == ROOT, shape.num_children, shape.inner_children)
    if shape.inner_children == shape.num_children:
        return _grow_family(model, branches, parents, nodes, count, pieces, none)

    def grow_if(
        wanted: Array, width: int, carry: tuple[Branches, _Grown]
    ) -> tuple[Branches, _Grown]:
        def grow(loop: tuple[Array, tuple[Branches, _Grown]]) -> Any:
            branches, grown = loop[1]
            first = jax.tree.map(lambda field: field[:, :, :width], grown)
            branches, first = _grow_family(model, branches, parents, nodes, count, pieces, first)
            grown = jax.tree.map(lambda all, some: all.at[:, :, :width].set(some), grown, first)
            return jnp.zeros_like(wanted), (branches, grown)

        # A loop of at most one round keeps the pool in place; a conditional would copy it.
        return jax.lax.while_loop(lambda loop: loop[0], grow, (wanted, carry))[1]

    # Roots are expanded once, before other nodes; the lanes that only they need are not run later.
    opens = jnp.any(nodes == ROOT)
    carry = grow_if(opens, shape.num_children, (branches, none))
    return grow_if(~opens, shape.inner_children, carry)


def _grow_family(
    model: Model,
    held: Branches,
    parents: Array,
    nodes: Array,
    count: Array,
    pieces: Pieces,
    none: _Grown,
) -> tuple[Branches, _Grown]:
    """Grows up to `count` i32[problems, batch] children of each, as many as `none` has rows."""
    family = none.branch.shape
    wanted = jnp.arange(family[-1]) < count[..., None]
    lanes = jnp.where(wanted, parents[..., None], -1).reshape(-1)
    held, branches = held_branches.fork(pieces.score, held, lanes)
    parent_nodes = jnp.broadcast_to(nodes[..., None], family).reshape(-1)
    state, thoughts = pieces.expand(model, held.state, branches, parent_nodes)
    held, scored = held_branches.score(pieces.score, model, held.replace(state=state), thoughts)
    value = usable_value(scored, thoughts)
    siblings = (parents.size, family[-1])
    distinct = drop_duplicates(value.reshape(siblings), scored.merge_key.reshape(siblings))
    distinct = distinct.reshape(-1)
    worth, prior = pieces.worth(distinct), pieces.prior(thoughts, scored)
    grown = _Grown(
        branch=branches,
        tokens=thoughts.tokens,
        raw_logprob=thoughts.raw_logprob,
        logprob=thoughts.logprob,
        value=value,
        merge_key=scored.merge_key,
        worth=worth,
        prior=prior,
        answer=scored.answer,
        exists=~jnp.isneginf(distinct) & jnp.isfinite(worth) & jnp.isfinite(prior),
        out_of_room=((lanes >= 0) & (branches < 0)) | thoughts.failed | scored.short,
    )
    return held, jax.tree.map(lambda field, shaped: field.reshape(shaped.shape), grown, none)


def _no_children(family: tuple[int, ...], thought_tokens: int) -> _Grown:
    """What stands where a node has fewer children than its family has rows."""
    zero, no = jnp.zeros(family, jnp.float32), jnp.zeros(family, bool)
    return _Grown(
        branch=jnp.full(family, -1, jnp.int32),
        tokens=jnp.full((*family, thought_tokens), NO_TOKEN, jnp.int32),
        raw_logprob=zero,
        logprob=zero,
        value=jnp.full(family, -jnp.inf, jnp.float32),
        merge_key=jnp.zeros(family, jnp.int32),
        worth=zero,
        prior=zero,
        answer=no,
        exists=no,
        out_of_room=no,
    )


def _commit(
    model: Model, held: Held, nodes: Array, parents: Array, pieces: Pieces
) -> tuple[Branches, Array]:
    """Appends the commit tokens to branches i32[problems, batch]; also which are ready."""
    if pieces.commit is None:
        return held.branches, parents >= 0
    bare = (nodes == ROOT) & held.bare_root[:, None]
    ids = jnp.where(bare, -1, parents).reshape(-1)
    branches, ok = held_branches.append(pieces.score, model, held.branches, ids, pieces.commit)
    return branches, (parents >= 0) & (bare | ok.reshape(parents.shape))
