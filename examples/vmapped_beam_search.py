"""Beam search as a function: jit it, and vmap it over states that hold different prompts.

Run it from anywhere: `python examples/vmapped_beam_search.py`
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.search import BeamSearchConfig, SearchResult, beam_search
from dendrite_jax.tasks.game24.solve import load_solver

PUZZLES = ("4 5 6 10", "1 2 4 7", "2 5 8 11")


def main() -> list[str]:
    """Prints the likeliest first step of each puzzle and gives their texts."""
    model, tokenizer = load_solver()
    config = BeamSearchConfig(width=3, max_new_tokens=24)
    cache = CacheConfig(num_blocks=32, num_slots=config.num_slots, max_context=64)
    newline = jnp.array(tokenizer.encode("\n"))
    texts = [f"<|bos|>Make 24 from {puzzle}\n" for puzzle in PUZZLES]
    encoded = [tokenizer.encode(text) for text in texts]
    longest = max(map(len, encoded))
    prompts = jnp.array([ids + [0] * (longest - len(ids)) for ids in encoded])
    lengths = jnp.array([len(ids) for ids in encoded])

    def search(prompt: jax.Array, length: jax.Array) -> SearchResult:
        """One prompt, from an empty state of its own to its beams; pure, so vmap takes it."""
        state = engine.init(model, cache)
        state, root = engine.open_branches(state, jax.random.split(jax.random.key(0), 1))
        state, _ = engine.prefill(model, state, root, prompt[None], length[None])
        _, beams = beam_search(model, state, root, None, config, stop_tokens=newline)
        return beams

    beams = jax.jit(jax.vmap(search))(prompts, lengths)
    steps = []
    for puzzle, tokens, length, score in zip(
        PUZZLES, beams.tokens[:, 0, 0], beams.length[:, 0, 0], beams.values[:, 0, 0], strict=True
    ):
        steps.append(tokenizer.decode(tokens[:length].tolist()))
        print(f"{puzzle}:{steps[-1].rstrip()}  (score {score:.3f})")
    return steps


if __name__ == "__main__":
    main()
