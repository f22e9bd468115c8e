"""Fork a branch by hand: one prompt, three continuations, and what they share.

Run it from anywhere: `python examples/fork_by_hand.py`
"""

from __future__ import annotations

import jax.numpy as jnp

from dendrite_jax.cache import stats
from dendrite_jax.engine import GenerateConfig, StopRules
from dendrite_jax.serving import compiled, start
from dendrite_jax.tasks.game24.solve import load_solver


def main() -> list[str]:
    """Prints three first steps for one puzzle and gives their texts."""
    model, tokenizer = load_solver()
    prompt = "<|bos|>Make 24 from 4 5 6 10\n"

    # A branch is a row of the block table; its blocks hold the prompt. There is room for four.
    state, root = start(model, prompt, 4, tokenizer=tokenizer, new_tokens=24)

    # Three children: three more rows that name the same blocks. No key or value is copied.
    run = compiled()  # the functions of `dendrite_jax.engine`, jitted
    state, children = run.fork(state, jnp.repeat(root, 3))
    print(f"after the fork, blocks in use: {stats(state.cache).blocks_used}")

    # Each child draws from its own key. Its first write copies the block that it shares.
    newline = StopRules.of(tokenizer.encode("\n"))
    state, out = run.generate(model, state, children, GenerateConfig(24), stop=newline)
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
