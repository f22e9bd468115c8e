"""A process reward model beside the policy: every thought is judged by a second language model.

Both are the embedded model here; any two models of one vocabulary do. The reward model's cache
forks along with the search's, so that it runs every token once.

Run it from anywhere: `python examples/reward_model.py`
"""

from __future__ import annotations

from functools import partial

import jax

from dendrite_jax.engine import StopRules
from dendrite_jax.search import (
    DVTSConfig,
    RewardModel,
    SampleThoughts,
    ValueTokens,
    dvts,
    path_tokens,
)
from dendrite_jax.serving import start
from dendrite_jax.tasks.game24.solve import load_solver


def main() -> str:
    """Prints the best of three subtrees' paths and gives its text."""
    policy, tokenizer = load_solver()
    verdicts = [tokenizer.encode(word)[0] for word in (" sure", " impossible")]
    judge = RewardModel(policy, readout=ValueTokens.of(verdicts, (1.0, 0.001)))
    config = DVTSConfig(n=12, beam_width=4, iterations=3)
    prompt = "<|bos|>Make 24 from 4 5 6 10\n"
    state, roots = start(policy, prompt, config, tokenizer=tokenizer, new_tokens=3 * 24)

    # A step of the puzzle ends before its verdict, which the reward model's readout asks for.
    steps = SampleThoughts(24, StopRules.of(tokenizer.encode(")")))
    search = jax.jit(partial(dvts, config=config))
    key = jax.random.key(1)
    commit = jax.numpy.array(tokenizer.encode(" sure\n"))
    _, found = search(policy, state, roots, key, expand=steps, score=judge, commit=commit)
    thoughts = path_tokens(found.tree, 0, int(found.answers[0, 0]))
    text = "\n".join(tokenizer.decode(thought).strip() for thought in thoughts)
    print(text)
    ledger = found.ledger.totals()
    print(f"tokens judged {ledger['scored']}")
    return text


if __name__ == "__main__":
    main()
