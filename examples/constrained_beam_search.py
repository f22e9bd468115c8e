"""Beam search under a grammar: the roots carry it, and every beam stays inside it.

Run it from anywhere: `python examples/constrained_beam_search.py`
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dendrite_jax import engine
from dendrite_jax.grammar import NO_GRAMMAR, Grammar, GrammarCompiler, stack
from dendrite_jax.search import BeamSearchConfig, beam_search
from dendrite_jax.serving import start
from dendrite_jax.tasks.game24.solve import load_solver

STEP = r" [0-9]+ {op} [0-9]+ = [0-9]+(/[0-9]+)? \(left:( [0-9]+(/[0-9]+)?)+\)"
OPERATIONS = {"multiply first": r"\*", "add first": r"\+"}


def main() -> dict[str, str]:
    """Prints the likeliest first step of each kind, and of any kind, and gives their texts."""
    model, tokenizer = load_solver()
    compiler = GrammarCompiler(tokenizer)
    grammars = [Grammar.from_regex(STEP.replace("{op}", op)) for op in OPERATIONS.values()]
    table = stack([compiler.compile(grammar) for grammar in grammars])

    # One problem for each grammar and one without, in one batch.
    names = [*OPERATIONS, "as it likes"]
    config = BeamSearchConfig(width=3, max_new_tokens=24)
    prompts = ["<|bos|>Make 24 from 4 5 6 10\n"] * len(names)
    state, roots = start(model, prompts, config, tokenizer=tokenizer)
    state = engine.constrain(state, roots, table, jnp.array([0, 1, NO_GRAMMAR]))

    search = jax.jit(beam_search, static_argnames="config", donate_argnums=1)
    newline = jnp.array(tokenizer.encode("\n"))
    _, beams = search(model, state, roots, None, config=config, stop_tokens=newline)
    steps = {}
    for name, tokens, score in zip(
        names, beams.tokens[:, 0].tolist(), beams.values[:, 0], strict=True
    ):
        kept = [token for token in tokens if token >= 0 and token not in tokenizer.eos_ids]
        steps[name] = tokenizer.decode(kept).rstrip()
        print(f"{name}:{steps[name]}  (score {score:.3f})")
    return steps


if __name__ == "__main__":
    main()
