"""Bring your own value function: five lines of jax.numpy steer a tree of thoughts.

Run it from anywhere: `python examples/own_value_function.py`
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dendrite_jax.engine import Model, State, StopRules
from dendrite_jax.search import (
    SampleThoughts,
    Scored,
    Thoughts,
    TreeOfThoughtsConfig,
    path_key,
    path_tokens,
    tree_of_thoughts,
)
from dendrite_jax.serving import start
from dendrite_jax.tasks.game24.solve import load_solver


def short_and_likely(model: Model, state: State, thoughts: Thoughts) -> Scored:
    """Prefers thoughts that the model finds likely and that are short."""
    value = thoughts.raw_logprob - 0.5 * thoughts.length
    nothing_ends = jnp.zeros_like(thoughts.complete)
    return Scored(value, merge_key=path_key(thoughts), answer=nothing_ends)


def main() -> str:
    """Prints the best path under the value above and gives its text."""
    model, tokenizer = load_solver()
    config = TreeOfThoughtsConfig(breadth=3, proposals=12, depth=3)
    prompt = "<|bos|>Make 24 from 4 5 6 10\n"
    state, roots = start(model, prompt, config, tokenizer=tokenizer, new_tokens=3 * 24)

    lines = SampleThoughts(24, StopRules.of(tokenizer.encode("\n")))
    search = jax.jit(tree_of_thoughts, static_argnames=("config", "score"))
    _, found = search(
        model, state, roots, jax.random.key(1), config, expand=lines, score=short_and_likely
    )
    thoughts = path_tokens(found.tree, 0, int(found.answers[0, 0]))
    text = tokenizer.decode([token for thought in thoughts for token in thought])
    print(text, end="")
    print(f"value {found.values[0, 0]:.3f}")
    return text


if __name__ == "__main__":
    main()
