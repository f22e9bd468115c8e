"""A process reward model: a second language model in the same process, with its own cache."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax import engine
from dendrite_jax.cache import NO_BRANCH, CacheConfig, Ledger
from dendrite_jax.engine import Model, State
from dendrite_jax.search.piece import Piece
from dendrite_jax.search.score.readout import Readout
from dendrite_jax.search.score.scored import Scored, Scorer, revalue
from dendrite_jax.search.thoughts import Thoughts


class Mirror(struct.PyTreeNode):
    """The reward model's state, with a branch for each of the search's."""

    state: State
    branch: Array  # i32[slots of the search's state], NO_BRANCH for none

    def of(self, branches: Array) -> Array:
        """The mirror's branches of the search's i32[n], negative for none."""
        return jnp.where(branches >= 0, self.branch[jnp.maximum(branches, 0)], NO_BRANCH)


class RewardModel(Piece):
    """Values a thought by what a second model makes of the whole path (Lightman et al. 2023).

    A `search.StatefulScorer`: its cache is forked and freed along with the search's, so that every
    token of a path is run through it once (`result.ledger.scored`), whatever grows from it later.
    It lives for one search and has as many blocks and slots as the search's own state. Blocks of a
    prompt that several roots share are held once for each; a thought that finds no room has no
    value (`Scored.short`).
    """

    model: Model  # of the policy's vocabulary
    readout: Readout  # reads the value off the hidden state of a thought's last token
    scorer: Scorer | None = None  # whose merge keys, answers and rejections hold; see `revalue`

    def open(self, state: State, roots: Array) -> Mirror:
        """Runs the roots' prompts i32[problems] through the reward model.

        Raises:
          ValueError: the search's branches may hold more tokens than it was made for.
        """
        cache, limit = state.cache, self.model.max_position
        if limit is not None and cache.max_context > limit:
            raise ValueError(
                f"max_context of the search's state is {cache.max_context}; the reward model was "
                f"made for {limit} tokens (max_position), and holds all that a branch may hold"
            )
        capacities = CacheConfig(
            cache.num_blocks, cache.num_slots, cache.max_context, cache.block_size
        )
        own = engine.init(self.model, capacities)
        tokens, count = engine.branch_tokens(state, roots)
        own, branches = engine.open_branches(
            own, jax.random.split(jax.random.key(0), roots.shape[0])
        )
        own = engine.free(own, jnp.where(count > 0, NO_BRANCH, branches))
        branches = jnp.where(count > 0, branches, NO_BRANCH)
        own, _ = engine.prefill(self.model, own, branches, tokens, count)
        branch = jnp.full(cache.num_slots, NO_BRANCH, jnp.int32)
        return Mirror(own, branch.at[_place(branch, roots)].set(branches, mode="drop"))

    def fork(self, mirror: Mirror, parents: Array, children: Array) -> Mirror:
        parents = jnp.where(children >= 0, mirror.of(parents), NO_BRANCH)
        own, made = engine.fork(mirror.state, parents)
        place = _place(mirror.branch, children)
        return Mirror(own, mirror.branch.at[place].set(made, mode="drop"))

    def append(self, mirror: Mirror, branches: Array, tokens: Array, count: Array) -> Mirror:
        own, _ = engine.prefill(self.model, mirror.state, mirror.of(branches), tokens, count)
        return mirror.replace(state=own)

    def score(
        self, mirror: Mirror, model: Model, state: State, thoughts: Thoughts
    ) -> tuple[Mirror, Scored]:
        """Runs the thoughts' tokens through the reward model and reads their values off it.

        Raises:
          ValueError: it has another vocabulary than the policy.
        """
        if self.model.vocab_size != model.vocab_size:
            raise ValueError(
                f"model.vocab_size of the reward model is {self.model.vocab_size}; it must be the "
                f"policy's, {model.vocab_size}"
            )
        wanted = (thoughts.branch >= 0) & (thoughts.length > 0)
        branches = jnp.where(wanted, mirror.of(thoughts.branch), NO_BRANCH)
        tokens = jnp.maximum(thoughts.tokens, 0)  # padding has no embedding
        own, _, ok = engine.score_tokens(
            self.model, mirror.state, branches, tokens, thoughts.length
        )
        value = self.readout.read(self.model, own.hidden[jnp.maximum(branches, 0)])
        value = jnp.where(ok, value, -jnp.inf)
        scored = revalue(self.scorer, value, model, state, thoughts)
        return mirror.replace(state=own), scored._replace(short=wanted & ~ok)

    def free(self, mirror: Mirror, branches: Array) -> Mirror:
        own = engine.free(mirror.state, mirror.of(branches))
        place = _place(mirror.branch, branches)
        return Mirror(own, mirror.branch.at[place].set(NO_BRANCH, mode="drop"))

    def ledger(self, mirror: Mirror) -> Ledger:
        return mirror.state.cache.ledger


def _place(branch: Array, ids: Array) -> Array:
    """The search's branch ids as scatter indices: out of range where there is no branch."""
    return jnp.where(ids >= 0, ids, branch.shape[0])
