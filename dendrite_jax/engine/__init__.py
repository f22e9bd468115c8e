"""Prefill, decode steps, sampling and generation over the paged cache."""

from dendrite_jax.engine.constraint import (
    WANTED,
    Constraint,
    constrain,
    ends_text,
    has_ended,
    is_unknown,
    mask_logits,
    with_table,
)
from dendrite_jax.engine.generate import generate
from dendrite_jax.engine.generated import GenerateConfig, Generated, Round
from dendrite_jax.engine.keys import check_key
from dendrite_jax.engine.rewind import rewind
from dendrite_jax.engine.sampling import GREEDY, PLAIN, Sampled, Sampling, sample
from dendrite_jax.engine.state import (
    Model,
    State,
    branch_tokens,
    fork,
    free,
    init,
    open_branches,
    resize,
    set_keys,
    truncate,
    without_stale,
)
from dendrite_jax.engine.step import (
    Stepped,
    advance,
    length_bucket,
    next_logits,
    prefill,
    score_tokens,
    step,
)
from dendrite_jax.engine.stop_strings import (
    ByteAutomaton,
    can_match,
    compile_stop_strings,
    stack_stop_strings,
)
from dendrite_jax.engine.stopping import FINISH_NAMES, NO_AUTOMATON, StopRules, StopStrings
from dendrite_jax.grammar import NO_TOKEN

__all__ = [
    "FINISH_NAMES",
    "GREEDY",
    "NO_AUTOMATON",
    "NO_TOKEN",
    "PLAIN",
    "WANTED",
    "ByteAutomaton",
    "Constraint",
    "GenerateConfig",
    "Generated",
    "Model",
    "Round",
    "Sampled",
    "Sampling",
    "State",
    "Stepped",
    "StopRules",
    "StopStrings",
    "advance",
    "branch_tokens",
    "can_match",
    "check_key",
    "compile_stop_strings",
    "constrain",
    "ends_text",
    "fork",
    "free",
    "generate",
    "has_ended",
    "init",
    "is_unknown",
    "length_bucket",
    "mask_logits",
    "next_logits",
    "open_branches",
    "prefill",
    "resize",
    "rewind",
    "sample",
    "score_tokens",
    "set_keys",
    "stack_stop_strings",
    "step",
    "truncate",
    "with_table",
    "without_stale",
]
