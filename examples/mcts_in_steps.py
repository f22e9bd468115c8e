"""Monte Carlo tree search in steps: look at the tree while it grows, save it, go on elsewhere.

Every search is a module of `start`, `advance`, `unfinished`, `read` and `finish`; the function of
its name runs them to the end.

Run it from anywhere: `python examples/mcts_in_steps.py`
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax

from dendrite_jax import checkpoints
from dendrite_jax.engine import StopRules
from dendrite_jax.search import MctsConfig, SampleThoughts, ValueTokens
from dendrite_jax.search.monte_carlo import MctsPieces, loop
from dendrite_jax.serving import start
from dendrite_jax.tasks.game24.solve import load_solver


def main() -> list[float]:
    """Prints the best value after each batch of expansions, and gives those values."""
    model, tokenizer = load_solver()
    config = MctsConfig(num_simulations=60, num_children=8, num_expansions=10, max_depth=3)
    verdicts = [tokenizer.encode(word)[0] for word in (" sure", " impossible")]
    pieces = MctsPieces(
        expand=SampleThoughts(24, StopRules.of(tokenizer.encode(")"))),
        score=ValueTokens.of(verdicts, (1.0, 0.001)),
        commit=jax.numpy.array(tokenizer.encode(" sure\n")),
    )
    prompt = "<|bos|>Make 24 from 4 5 6 10\n"
    state, roots = start(model, prompt, config, tokenizer=tokenizer, new_tokens=3 * 27)

    begin = jax.jit(loop.start, static_argnums=4)
    advance = jax.jit(loop.advance)
    look = jax.jit(lambda search: (loop.read(pieces, search), loop.unfinished(search)))
    search = begin(pieces, state, roots, jax.random.key(3), config)
    best = []
    with tempfile.TemporaryDirectory() as folder:
        unfinished = True
        while unfinished:
            search = advance(model, pieces, search)
            found, unfinished = look(search)
            best.append(float(found.values[0, 0]))
            if len(best) == 2:
                # A loop is a pytree without weights: save it, and go on with what was saved.
                checkpoints.save(Path(folder) / "loop", search)
                search = checkpoints.restore(Path(folder) / "loop", like=search)
    print(" ".join(f"{value:.3f}" for value in best))
    print(f"visits of the root {int(found.tree.visits[0, 0])}")
    return best


if __name__ == "__main__":
    main()
