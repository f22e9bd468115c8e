"""Making the children of tree nodes with the engine: fork, grow, score, weigh."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache import NO_BRANCH
from dendrite_jax.engine import NO_TOKEN, Model
from dendrite_jax.engine.loops import run_if
from dendrite_jax.search.monte_carlo.children import Children
from dendrite_jax.search.monte_carlo.config import MctsConfig
from dendrite_jax.search.monte_carlo.tree import MctsTree
from dendrite_jax.search.outcome import MERGED, UNUSED, outcome_of, set_aside
from dendrite_jax.search.piece import Piece
from dendrite_jax.search.record import thought_fields
from dendrite_jax.search.score.scored import Scored, mean_loglikelihood, usable_value
from dendrite_jax.search.select import drop_duplicates
from dendrite_jax.search.session import AnyScorer, Session
from dendrite_jax.search.thoughts import Expand, Thoughts
from dendrite_jax.search.tree import NO_NODE, ROOT


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


class ValuePrior(Piece):
    """The scorer's values as logits, such as its log-probabilities."""

    temperature: Array | float = 1.0  # > 0

    def __call__(self, thoughts: Thoughts, scored: Scored) -> Array:
        return scored.value / self.temperature


class Worth(Protocol):
    """A pure, growing function from a scorer's values f32[...] to what is averaged."""

    def __call__(self, value: Array, /) -> Array: ...


class MctsPieces(Piece):
    """The replaceable parts of a Monte Carlo tree search."""

    expand: Expand
    score: AnyScorer = mean_loglikelihood
    prior: Prior = even_prior
    worth: Worth = jnp.exp
    commit: Array | None = None  # i32[n], appended to a thought before it is expanded


def make_children(
    model: Model,
    pieces: MctsPieces,
    config: MctsConfig,
    bare_root: Array,
    session: Session,
    tree: MctsTree,
    nodes: Array,
    first_child: Array,
) -> tuple[Session, Children]:
    """Forks and grows the children of nodes i32[problems, batch]: `simulation.MakeChildren`.

    Rejected, merged and final children give their branches back; their rows stay recorded.

    Args:
      model: the model.
      pieces: of the search.
      config: static shape of the search.
      bare_root: bool[problems], the root is a prompt, to which nothing is committed.
      session: of the search.
      tree: its tree.
      nodes: NO_NODE for none.
      first_child: not looked at, the tree's own rows hold all that is made.
    """
    del first_child
    problem, node = tree.problems, jnp.maximum(nodes, ROOT)
    parents = jnp.where(nodes == NO_NODE, NO_BRANCH, tree.branch[problem, node])
    bare = (nodes == ROOT) & bare_root[:, None]
    session, ready = _commit(model, pieces, session, parents, bare)
    grow = partial(_grow_family, model, pieces, jnp.where(ready, parents, NO_BRANCH), nodes)
    none = _no_children((*nodes.shape, config.num_children), tree.tokens.shape[2])
    session, grown = _grow(grow, session, nodes, none, config)

    made = grown.branch >= 0
    depth = tree.depth[problem, node] + 1
    ends = grown.answer | (depth == config.max_depth)[..., None]
    kept = jnp.where(grown.exists & ~ends, grown.branch, NO_BRANCH)
    dropped = jnp.where(kept >= 0, NO_BRANCH, grown.branch)
    session = session.free(pieces.score, dropped.reshape(-1))
    depth = jnp.where(made, depth[..., None], 0)
    return session, Children(
        made=made,
        prior_logits=jnp.where(grown.exists, grown.prior, -jnp.inf),
        worth=jnp.where(grown.exists, grown.worth, 0.0),
        terminal=ends,
        out_of_room=jnp.any(grown.short, axis=2) | ((parents >= 0) & ~ready),
        fields={**grown.fields, "depth": depth, "branch": kept},
    )


class _Grown(NamedTuple):
    """Children, each field [problems, batch, num_children, …]."""

    branch: Array  # i32, NO_BRANCH where none was made
    worth: Array  # f32
    prior: Array  # f32
    answer: Array  # bool
    exists: Array  # bool, selection may take it
    short: Array  # bool, wanted but not made, or not finished for want of room
    fields: dict[str, Array]  # of the tree


class _Grow(Protocol):
    """Grows the first children of every family, `count` i32[problems, batch] at most."""

    def __call__(self, count: Array, session: Session, none: _Grown) -> tuple[Session, _Grown]: ...


def _grow(
    grow: _Grow, session: Session, nodes: Array, none: _Grown, config: MctsConfig
) -> tuple[Session, _Grown]:
    """Grows the families of nodes i32[problems, batch], of the widths that the config says."""
    inner = config.inner_children or config.num_children
    count = jnp.where(nodes == ROOT, config.num_children, inner)
    if inner == config.num_children:
        return grow(count, session, none)

    def grow_up_to(
        width: int, wanted: Array, carry: tuple[Session, _Grown]
    ) -> tuple[Session, _Grown]:
        session, grown = carry
        first = jax.tree.map(lambda field: field[:, :, :width], grown)
        session, first = grow(jnp.where(wanted, count, 0), session, first)

        def put(all: Array, some: Array) -> Array:
            # As a scatter it would read an array of size zero where the family is whole.
            kept = jnp.where(wanted, some, all[:, :, :width])
            return jax.lax.dynamic_update_slice_in_dim(all, kept, 0, axis=2)

        return session, jax.tree.map(put, grown, first)

    # Roots are expanded once, before other nodes; the lanes that only they need are not run later.
    opens = jnp.any(nodes == ROOT)
    carry = run_if(opens, partial(grow_up_to, config.num_children), (session, none))
    return run_if(~opens, partial(grow_up_to, inner), carry)


def _grow_family(
    model: Model,
    pieces: MctsPieces,
    parents: Array,
    nodes: Array,
    count: Array,
    session: Session,
    none: _Grown,
) -> tuple[Session, _Grown]:
    """Forks and grows children of branches i32[problems, batch], as many as `none` has rows."""
    family = none.branch.shape
    wanted = jnp.arange(family[-1]) < count[..., None]
    lanes = jnp.where(wanted, parents[..., None], NO_BRANCH).reshape(-1)
    session, branches = session.fork(pieces.score, lanes)
    parent_nodes = jnp.broadcast_to(nodes[..., None], family).reshape(-1)
    state, thoughts = pieces.expand(model, session.state, branches, parent_nodes)
    session, scored = session.replace(state=state).score(pieces.score, model, thoughts)

    value = usable_value(scored, thoughts)
    siblings = (parents.size, family[-1])
    distinct = drop_duplicates(value.reshape(siblings), scored.merge_key.reshape(siblings))
    distinct = distinct.reshape(-1)
    worth, prior = pieces.worth(distinct), pieces.prior(thoughts, scored)
    outcome = set_aside(outcome_of(thoughts, scored), value, distinct, MERGED)
    grown = _Grown(
        branch=branches,
        worth=worth,
        prior=prior,
        answer=scored.answer,
        exists=~jnp.isneginf(distinct) & jnp.isfinite(worth) & jnp.isfinite(prior),
        short=((lanes >= 0) & (branches < 0)) | thoughts.failed | scored.short,
        fields={
            **thought_fields(thoughts, scored, thoughts.length.shape, _tokens(none)),
            "value": value,
            "outcome": outcome,
        },
    )
    return session, jax.tree.map(lambda field, shaped: field.reshape(shaped.shape), grown, none)


def _no_children(family: tuple[int, ...], thought_tokens: int) -> _Grown:
    """What stands where a node has fewer children than its family has rows."""
    zero, no = jnp.zeros(family, jnp.float32), jnp.zeros(family, bool)
    fields = {
        "parent": jnp.full(family, NO_NODE, jnp.int32),
        "tokens": jnp.full((*family, thought_tokens), NO_TOKEN, jnp.int32),
        "raw_logprob": zero,
        "logprob": zero,
        "value": jnp.full(family, -jnp.inf, jnp.float32),
        "merge_key": jnp.zeros(family, jnp.int32),
        "outcome": jnp.full(family, UNUSED, jnp.int32),
    }
    return _Grown(
        branch=jnp.full(family, NO_BRANCH, jnp.int32),
        worth=zero,
        prior=zero,
        answer=no,
        exists=no,
        short=no,
        fields=fields,
    )


def _tokens(grown: _Grown) -> int:
    return grown.fields["tokens"].shape[-1]


def _commit(
    model: Model, pieces: MctsPieces, session: Session, parents: Array, bare: Array
) -> tuple[Session, Array]:
    """Appends the commit tokens to branches i32[problems, batch]; also which are ready.

    Nothing is committed where `bare`.
    """
    if pieces.commit is None:
        return session, parents >= 0
    ids = jnp.where(bare, NO_BRANCH, parents).reshape(-1)
    session, ok = session.append(pieces.score, model, ids, pieces.commit)
    return session, (parents >= 0) & (bare | ok.reshape(parents.shape))
