"""Making the children of tree nodes with the engine: fork, grow, score, weigh."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax import engine
from dendrite_jax.engine import Model, State
from dendrite_jax.engine.sampling import token_logprob
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


class TopTokens(struct.PyTreeNode):
    """Grows siblings by the likeliest tokens, one each: search at the level of tokens.

    The lanes of siblings stand together, `count` of them, as many as the search has children. Use
    it with `likelihood_prior` and a scorer that knows where a text ends, such as `EndsAt`.

    Attributes:
      count: tokens tried after a node, the likeliest that its grammar allows (static).
    """

    count: int = struct.field(pytree_node=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}; it must be at least 1")

    @property
    def max_tokens(self) -> int:
        return 1

    def __call__(
        self, model: Model, state: State, branches: Array, parents: Array
    ) -> tuple[State, Thoughts]:
        if self.count > model.vocab_size:
            raise ValueError(f"count is {self.count}; it must be at most {model.vocab_size}")
        logits = engine.next_logits(model, state, branches)
        allowed, ranked = jax.lax.top_k(engine.mask_logits(state, branches, logits), self.count)
        rank = jnp.arange(branches.shape[0])[:, None] % self.count
        token = jnp.take_along_axis(ranked, rank, axis=1)[:, 0]
        exists = ~jnp.isneginf(jnp.take_along_axis(allowed, rank, axis=1)[:, 0])
        grown = jnp.where(exists, branches, -1)
        logprob = token_logprob(logits, token)
        unknown = engine.is_unknown(state, grown, token)
        state, ok = engine.advance(model, state, grown, token)
        return state, Thoughts(
            branch=branches,
            tokens=jnp.where(ok, token, engine.NO_TOKEN)[:, None],
            length=ok.astype(jnp.int32),
            complete=ok,
            failed=(grown >= 0) & ~ok & ~unknown,
            raw_logprob=jnp.where(ok, logprob, 0.0),
            logprob=jnp.where(ok, logprob, 0.0),
            parent=parents,
        )


class EndsAt(struct.PyTreeNode):
    """A scorer's values; a thought that ends with one of some tokens is an answer."""

    scorer: Scorer
    tokens: Array  # i32[n]

    def __call__(self, model: Model, state: State, thoughts: Thoughts) -> Scored:
        scored = self.scorer(model, state, thoughts)
        last = jnp.maximum(thoughts.length - 1, 0)[:, None]
        token = jnp.take_along_axis(thoughts.tokens, last, axis=1)
        ends = jnp.any(token == self.tokens, axis=1) & (thoughts.length > 0)
        return scored._replace(answer=scored.answer | ends)


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
    family = (*nodes.shape, shape.num_children)
    count = jnp.where(nodes == ROOT, shape.num_children, shape.inner_children)
    wanted = ready[..., None] & (jnp.arange(shape.num_children) < count[..., None])
    lanes = jnp.where(wanted, parents[..., None], -1).reshape(-1)
    state, branches = engine.fork(state, lanes)
    parent_nodes = jnp.broadcast_to(nodes[..., None], family)
    state, thoughts = pieces.expand(model, state, branches, parent_nodes.reshape(-1))
    scored = pieces.score(model, state, thoughts)

    value = usable_value(scored, thoughts)
    value = jnp.where(jnp.isposinf(value), -jnp.inf, value)  # no mean survives it
    siblings = (nodes.size, shape.num_children)
    distinct = drop_duplicates(value.reshape(siblings), scored.merge_key.reshape(siblings))
    distinct = distinct.reshape(family)
    worth = pieces.worth(distinct)
    prior = pieces.prior(thoughts, scored).reshape(family)
    exists = ~jnp.isneginf(distinct) & jnp.isfinite(worth) & jnp.isfinite(prior)
    depth = held.record.depth[problem, node] + 1
    ends = scored.answer | engine.has_ended(state, thoughts.branch)
    ends = ends.reshape(family) | (depth == shape.max_depth)[..., None]
    state = engine.free(state, jnp.where((exists & ~ends).reshape(-1), -1, branches))

    rows = jnp.where(
        (nodes == NO_NODE)[..., None],
        held.branch.shape[1],
        first_child[..., None] + jnp.arange(shape.num_children),
    )
    made = (branches >= 0).reshape(family)

    def write(field: Array, values: Array) -> Array:
        return field.at[problem[..., None], rows].set(values, mode="drop")

    record = held.record
    record = record.replace(
        parent=write(record.parent, jnp.where(made, parent_nodes, NO_NODE)),
        depth=write(record.depth, jnp.where(made, depth[..., None], 0)),
        tokens=write(record.tokens, thoughts.tokens.reshape(*family, -1)),
        raw_logprob=write(record.raw_logprob, thoughts.raw_logprob.reshape(family)),
        logprob=write(record.logprob, thoughts.logprob.reshape(family)),
        value=write(record.value, value.reshape(family)),
        merge_key=write(record.merge_key, scored.merge_key.reshape(family)),
        terminal=write(record.terminal, made & ends),
    )
    branch = write(held.branch, jnp.where(exists & ~ends, branches.reshape(family), -1))
    refused = (lanes >= 0) & (branches < 0)
    short = jnp.any((refused | thoughts.failed).reshape(family), axis=2)
    expansion = Expansion(
        prior_logits=jnp.where(exists, prior, -jnp.inf),
        value=jnp.where(exists, worth, 0.0),
        terminal=ends,
        out_of_room=short | ((parents >= 0) & ~ready),
    )
    return held._replace(state=state, record=record, branch=branch), expansion


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
