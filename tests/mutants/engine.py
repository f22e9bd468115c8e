"""Mutations of the engine."""

from __future__ import annotations

from mutants.mutant import Mutant

_SAMPLING = "dendrite_jax/engine/sampling.py"
_GENERATE = "dendrite_jax/engine/generate.py"
_STATE = "dendrite_jax/engine/state.py"
_STEP = "dendrite_jax/engine/step.py"

MUTANTS = (
    Mutant(
        "a draw depends on its place in the batch",
        _SAMPLING,
        "jax.vmap(draw)(key, position, processed)",
        "jax.vmap(draw)(key, position + jnp.arange(len(key)), processed)",
        ("engine/test_sampling.py::test_a_draw_depends_on_key_and_position_only",),
    ),
    Mutant(
        "every position draws the same noise",
        _SAMPLING,
        "jax.random.fold_in(jax.random.wrap_key_data(key), position)",
        "jax.random.wrap_key_data(key)",
        ("engine/test_sampling.py::test_draws_have_the_processed_distribution",),
    ),
    Mutant(
        "raw and processed log-probabilities are swapped",
        _SAMPLING,
        "token_logprob(logits, token), token_logprob(processed, token)",
        "token_logprob(processed, token), token_logprob(logits, token)",
        (
            "engine/test_sampling.py::test_logprobs_are_of_the_raw_and_of_the_processed_distribution",
        ),
    ),
    Mutant(
        "top-k drops the equals of the kth",
        _SAMPLING,
        "ranked = jnp.where(ranked >= least, ranked, -jnp.inf)",
        "ranked = jnp.where(rank <= last, ranked, -jnp.inf)",
        ("engine/test_sampling.py::test_top_k_keeps_the_equals_of_the_kth_too",),
    ),
    Mutant(
        "top-p leaves out the token that reaches it",
        _SAMPLING,
        "inside = (before < top_p)",
        "inside = (before + probability < top_p)",
        ("engine/test_sampling.py::test_every_combination_lane_by_lane",),
    ),
    Mutant(
        "min-p is a share of one, not of the likeliest",
        _SAMPLING,
        "floor = jnp.max(logits, axis=-1, keepdims=True) +",
        "floor = jax.nn.logsumexp(logits, axis=-1, keepdims=True) +",
        ("engine/test_sampling.py::test_every_combination_lane_by_lane",),
    ),
    Mutant(
        "a repetition penalty rewards",
        _SAMPLING,
        "jnp.where(logits > 0, logits / penalty, logits * penalty)",
        "jnp.where(logits > 0, logits * penalty, logits / penalty)",
        ("engine/test_sampling.py::test_every_combination_lane_by_lane",),
    ),
    Mutant(
        "the temperature multiplies",
        _SAMPLING,
        "logits = logits / _divisor(",
        "logits = logits * _divisor(",
        ("engine/test_sampling.py::test_every_combination_lane_by_lane",),
    ),
    Mutant(
        "all lanes have the stop strings of the first",
        "dendrite_jax/engine/stopping.py",
        "rules.strings.first[jnp.maximum(automaton, 0)]",
        "rules.strings.first[0]",
        ("engine/test_lanes.py::test_every_lane_has_its_own_limit_stop_tokens_and_stop_strings",),
    ),
    Mutant(
        "matching does not start afresh after a match",
        "dendrite_jax/engine/stopping.py",
        "+ jnp.maximum(string_state, 0)",
        "+ jnp.abs(string_state)",
        ("engine/test_stop_strings.py::test_matching_starts_afresh_after_a_match",),
    ),
    Mutant(
        "a failed match of a stop string falls back to the start",
        "dendrite_jax/engine/stop_strings.py",
        "fallback[child] = int(next_state[node, byte]) if node else 0",
        "fallback[child] = 0",
        (
            "engine/test_stop_strings.py::test_a_match_by_hand",
            "engine/test_stop_strings.py::test_matches_fall_where_the_text_has_them",
        ),
    ),
    Mutant(
        "a limit on new tokens raises the config's",
        _GENERATE,
        "limit = jnp.minimum(stop.limit, limit)",
        "limit = jnp.maximum(stop.limit, limit)",
        ("engine/test_lanes.py::test_a_limit_of_nothing_ends_a_lane_at_once",),
    ),
    Mutant(
        "a round goes on for one step more",
        _GENERATE,
        "unfinished &= loop.steps < until.steps",
        "unfinished &= loop.steps <= until.steps",
        ("engine/test_lanes.py::test_rounds_give_what_one_call_gives",),
    ),
    Mutant(
        "infinite logits are drawn from",
        _GENERATE,
        "return ~jnp.isfinite(jax.nn.logsumexp(logits, axis=-1))",
        "return jnp.isnan(jax.nn.logsumexp(logits, axis=-1))",
        ("engine/test_lanes.py::test_a_branch_without_a_distribution_ends_alone",),
    ),
    Mutant(
        "stop rules see the first token of a forced run only",
        _GENERATE,
        "reading = (column < count) & (reason == RUNNING)",
        "reading = column < count",
        ("engine/test_fast_forward.py::test_a_stop_token_inside_a_run_ends_it",),
    ),
    Mutant(
        "a child's key depends on its place in the call",
        _STATE,
        "state.children[parent] + _rank_among_equals(parents)",
        "state.children[parent] + jnp.arange(len(parents))",
        ("engine/test_forks.py::test_a_childs_key_hangs_on_its_parents_key_and_its_number_only",),
    ),
    Mutant(
        "a branch that was cut is not stale",
        _STATE,
        "state.stale.at[shorter].set(True, mode",
        "state.stale.at[shorter].set(False, mode",
        ("engine/test_rewind.py::test_a_child_of_a_stale_branch_is_stale",),
    ),
    Mutant(
        "a rewound branch has the position after its last token",
        "dendrite_jax/engine/rewind.py",
        "start=position,",
        "start=position + 1,",
        ("engine/test_rewind.py::test_a_cut_branch_is_what_its_tokens_alone_would_give",),
    ),
    Mutant(
        "a text that is cut away goes on where it began",
        "dendrite_jax/engine/constraint.py",
        "text_start = jnp.minimum(now.text_start, length)",
        "text_start = now.text_start",
        ("engine/test_rewind.py::test_a_text_that_is_cut_away_begins_anew_at_the_cut",),
    ),
    Mutant(
        "chunks of a prompt all begin where the first does",
        _STEP,
        "start = appended.start + jnp.minimum(index * chunk, count)",
        "start = appended.start",
        ("engine/test_prefill.py::test_chunks_of_any_size_give_what_one_shot_gives",),
    ),
    Mutant(
        "a prompt's last hidden state is that of its padding",
        _STEP,
        "last = jnp.maximum(count - 1, 0)",
        "last = jnp.full_like(count, hidden.shape[1] - 1)",
        ("engine/test_prefill.py::test_chunks_of_any_size_give_what_one_shot_gives[16]",),
    ),
    Mutant(
        "the id after the vocabulary's last is taken",
        _STEP,
        "(tokens >= model.vocab_size)",
        "(tokens > model.vocab_size)",
        ("engine/test_lanes.py::test_a_token_outside_the_vocabulary_flags_its_branch_alone",),
    ),
)
