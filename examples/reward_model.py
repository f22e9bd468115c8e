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
    BestOfNConfig,
    RewardModel,
    SampleThoughts,
    ValueTokens,
    best_of_n,
    path_tokens,
)
from dendrite_jax.serving import start
from dendrite_jax.tasks.game24.solve import load_solver


def main() -> str:
    """Prints the best of twelve first steps of a puzzle and gives its text."""
    policy, tokenizer = load_solver()
    verdicts = [tokenizer.encode(word)[0] for word in (" sure", " impossible")]
    judge = RewardModel(policy, readout=ValueTokens.of(verdicts, (1.0, 0.001)))
    config = BestOfNConfig(n=12, vote="max")
    prompt = "<|bos|>Make 24 from 4 5 6 10\n"
    state, roots = start(policy, prompt, config, tokenizer=tokenizer, new_tokens=24)

    # A step of the puzzle ends before its verdict, which the reward model's readout asks for.
    steps = SampleThoughts(24, StopRules.of(tokenizer.encode(")")))
    search = jax.jit(partial(best_of_n, config=config))
    _, found = search(policy, state, roots, jax.random.key(1), expand=steps, score=judge)
    (step,) = path_tokens(found.tree, 0, int(found.answers[0, 0]))
    text = tokenizer.decode(step).strip()
    print(text)
    ledger = found.ledger.totals()
    print(f"tokens judged {ledger['scored']}")
    return text


if __name__ == "__main__":
    main()
