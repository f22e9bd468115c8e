"""Fork a branch by hand: one prompt, three continuations, and what they share.

Run it from anywhere: `python examples/fork_by_hand.py`
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig, stats
from dendrite_jax.engine import GenerateConfig, StopRules
from dendrite_jax.tasks.game24.solve import load_solver


def main() -> list[str]:
    """Prints three first steps for one puzzle and gives their texts."""
    model, tokenizer = load_solver()
    state = engine.init(model, CacheConfig(num_blocks=32, num_slots=8, max_context=64))
    prompt = jnp.array([tokenizer.encode("<|bos|>Make 24 from 4 5 6 10\n")])

    # A branch is a row of the block table; prefill fills its blocks.
    state, root = engine.open_branches(state, jax.random.split(jax.random.key(0), 1))
    state, _ = engine.prefill(model, state, root, prompt, jnp.array([prompt.shape[1]]))

    # Three children: three more rows that name the same blocks. No key or value is copied.
    state, children = engine.fork(state, jnp.repeat(root, 3))
    print(f"after the fork, blocks in use: {stats(state.cache).blocks_used}")

    # Each child draws from its own key. Its first write copies the block that it shares.
    newline = StopRules.of(tokenizer.encode("\n"))
    state, out = engine.generate(model, state, children, GenerateConfig(24), stop=newline)
    texts = [
        tokenizer.decode(tokens[:length])
        for tokens, length in zip(out.tokens.tolist(), out.length.tolist(), strict=True)
    ]
    print("".join(texts), end="")
    print(f"after the steps, blocks in use: {stats(state.cache).blocks_used}")
    print(f"tokens not recomputed: {state.cache.ledger.totals()['reused']}")
    return texts


if __name__ == "__main__":
    main()
