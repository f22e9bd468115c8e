"""Making the children of tree nodes with the engine: fork, grow, score, weigh."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax import engine
from dendrite_jax.engine import NO_TOKEN, Model, State
from dendrite_jax.search.expand import Expand, Thoughts
from dendrite_jax.search.mcts.growth import Expansion
from dendrite_jax.search.scoring import Scored, Scorer, usable_value
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
    score: Scorer
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

    state: State
    record: SearchTree
    branch: Array  # i32[problems, nodes], of each node that may be expanded; −1 for none
    bare_root: Array  # bool[problems], the root is a prompt, to which nothing is committed


def make_children(
    model: Model, held: Held, nodes: Array, first_child: Array, pieces: Pieces, shape: Shape
) -> tuple[Held, Expansion]:
    """Forks and grows the children of nodes i32[problems, batch]; the core's `Expand`.

    Rejected, merged and final children give their branches back; their rows stay recorded.
    """
    problem = jnp.arange(nodes.shape[0])[:, None]
    node = jnp.maximum(nodes, ROOT)
    parents = jnp.where(nodes == NO_NODE, -1, held.branch[problem, node])
    state, ready = _commit(model, held, nodes, parents, pieces.commit)
    thought_tokens = held.record.tokens.shape[2]
    state, grown = _grow(
        model, state, jnp.where(ready, parents, -1), nodes, pieces, shape, thought_tokens
    )
    depth = held.record.depth[problem, node] + 1
    ends = grown.answer | (depth == shape.max_depth)[..., None]
    state = engine.free(state, jnp.where(grown.exists & ~ends, -1, grown.branch).reshape(-1))

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
    return held._replace(state=state, record=record, branch=branch), expansion


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
    state: State,
    parents: Array,
    nodes: Array,
    pieces: Pieces,
    shape: Shape,
    thought_tokens: int,
) -> tuple[State, _Grown]:
    """Forks and grows the children of branches i32[problems, batch], −1 for none."""
    count = jnp.where(nodes == ROOT, shape.num_children, shape.inner_children)

    def grow(state: State, width: int) -> tuple[State, _Grown]:
        """Up to so many children of each."""
        family = (*parents.shape, width)
        wanted = jnp.arange(width) < count[..., None]
        lanes = jnp.where(wanted, parents[..., None], -1).reshape(-1)
        state, branches = engine.fork(state, lanes)
        parent_nodes = jnp.broadcast_to(nodes[..., None], family).reshape(-1)
        state, thoughts = pieces.expand(model, state, branches, parent_nodes)
        scored = pieces.score(model, state, thoughts)
        value = usable_value(scored, thoughts)
        value = jnp.where(jnp.isposinf(value), -jnp.inf, value)  # no mean survives it
        siblings = (parents.size, width)
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
            answer=scored.answer | engine.has_ended(state, thoughts.branch),
            exists=~jnp.isneginf(distinct) & jnp.isfinite(worth) & jnp.isfinite(prior),
            out_of_room=((lanes >= 0) & (branches < 0)) | thoughts.failed,
        )

        def fill(field: Array, rows: Array) -> Array:
            return rows.at[:, :, :width].set(field.reshape(*family, *field.shape[1:]))

        return state, jax.tree.map(fill, grown, nothing)

    nothing = _no_children((*parents.shape, shape.num_children), thought_tokens)
    if shape.inner_children == shape.num_children:
        return grow(state, shape.num_children)
    # Roots are expanded once, before other nodes; the lanes that only they need are not run later.
    # A loop of at most one round keeps the pool in place; a conditional would copy it.
    opens = jnp.any(nodes == ROOT)
    carry = (state, nothing)
    for wanted, width in ((opens, shape.num_children), (~opens, shape.inner_children)):
        _, carry = jax.lax.while_loop(
            lambda loop: loop[0],
            lambda loop, width=width: (jnp.zeros_like(loop[0]), grow(loop[1][0], width)),
            (wanted, carry),
        )
    return carry


def _no_children(family: tuple[int, int, int], thought_tokens: int) -> _Grown:
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
    model: Model, held: Held, nodes: Array, parents: Array, commit: Array | None
) -> tuple[State, Array]:
    """Appends the commit tokens to branches i32[problems, batch]; the state and which are ready."""
    if commit is None:
        return held.state, parents >= 0
    bare = (nodes == ROOT) & held.bare_root[:, None]
    ids = jnp.where(bare, -1, parents).reshape(-1)
    tokens = jnp.broadcast_to(commit, (ids.shape[0], commit.shape[0]))
    count = jnp.full(ids.shape, commit.shape[0])
    state, stepped = engine.prefill(model, held.state, ids, tokens, count)
    return state, (parents >= 0) & (bare | stepped.ok.reshape(parents.shape))
