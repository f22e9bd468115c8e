"""The engine object: what its methods give, against a dense decoder and against each other."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dendrite_jax.engine import GREEDY, Sampling
from dendrite_jax.engine.stopping import MATCHED
from dendrite_jax.serving import Completion, Engine
from models.dense_decoder import dense_logits

PROMPT = "The tree grows"
NEW = 12
BETWEEN_COUNTS = 2 * 1024 * 2**-24 * 8
"""Two orders of the sums of a logit differ by less than their terms, some 1024 in a chain through
both layers, times 2⁻²⁴ of its size, which is below 8; a logprob is a logit less such a sum."""


def greedy_by_dense_decoder(engine: Engine, prompt: list[int], count: int) -> list[int]:
    """The likeliest continuation, each token from a pass over the whole sequence."""
    tokens = list(prompt)
    for _ in range(count):
        logits = dense_logits(engine.model.config, engine.model.params, np.array([tokens]))
        tokens.append(int(np.argmax(logits[0, -1])))
    return tokens[len(prompt) :]


def text_of(engine: Engine, tokens: list[int]) -> str:
    """The UTF-8 of the tokens' bytes; tokens of the embedding alone have none."""
    known = [token for token in tokens if token < engine.tokenizer.vocab_size]
    pieces = [engine.tokenizer.token_bytes[token] or b"" for token in known]
    return b"".join(pieces).decode(errors="replace")


def across_tokens(engine: Engine, completion: Completion, length: int = 3) -> str:
    """A part of the completion's text that begins in one token and ends in the next."""
    pieces = [text_of(engine, [token]) for token in completion.tokens]
    for left, right in pairwise(pieces):
        part = (left[-1:] + right)[:length]
        if len(part) > 1 and right and part.isascii() and not any(part in p for p in pieces):
            return part
    raise AssertionError("the text has no such part")


def sampled(engine: Engine, seed: int = 3, **options: Any) -> Completion:
    """One sampled continuation of PROMPT by a new branch, which is given back."""
    branch = engine.prompt(PROMPT, seed=seed)
    (completion,) = engine.generate([branch], NEW, stop_tokens=[], **options)
    engine.free([branch])
    return replace(completion, branch=0)


def test_the_context_is_the_models_own_unless_said_otherwise(engine: Engine) -> None:
    capacities: dict[str, Any] = {"num_slots": 1, "num_blocks": 1}
    own = engine.model.max_position
    assert own is not None
    assert Engine(engine.model, engine.tokenizer, **capacities).config.max_context == own
    with pytest.raises(ValueError, match=rf"max_context is {own + 1}; .* {own} tokens"):
        Engine(engine.model, engine.tokenizer, max_context=own + 1, **capacities)
    longer: dict[str, Any] = {"max_context": own + 1, "allow_longer_context": True, **capacities}
    assert Engine(engine.model, engine.tokenizer, **longer).config.max_context == own + 1


def test_greedy_generation_is_the_dense_decoders(engine: Engine) -> None:
    tokens = engine.tokenizer.encode(PROMPT)
    branch = engine.prompt(PROMPT)
    (completion,) = engine.generate([branch], NEW, GREEDY, stop_tokens=[])
    assert completion.branch == branch
    assert completion.tokens == greedy_by_dense_decoder(engine, tokens, NEW)
    assert completion.text == text_of(engine, completion.tokens)
    assert completion.finish == "length"
    assert completion.logprobs == completion.raw_logprobs  # nothing was processed

    # All the branch's tokens are appended, so that it goes on where it stopped.
    (more,) = engine.generate([branch], NEW, GREEDY, stop_tokens=[])
    assert more.tokens == greedy_by_dense_decoder(engine, tokens + completion.tokens, NEW)


def test_logprobs_are_those_of_the_dense_decoder(engine: Engine) -> None:
    branch = engine.prompt(PROMPT, seed=1)
    sampling = Sampling(temperature=0.5)
    (completion,) = engine.generate([branch], NEW, sampling, stop_tokens=[])
    prompt = engine.tokenizer.encode(PROMPT)
    tokens = prompt + completion.tokens
    logits = dense_logits(engine.model.config, engine.model.params, np.array([tokens]))[0]
    for scale, found in ((1, completion.raw_logprobs), (2, completion.logprobs)):
        scaled = scale * logits[len(prompt) - 1 : -1]
        expected = scaled - np.logaddexp.reduce(scaled, axis=-1, keepdims=True)
        chosen = expected[np.arange(NEW), completion.tokens]
        np.testing.assert_allclose(found, chosen, rtol=1e-3, atol=1e-3)


def test_token_ids_are_taken_as_they_are(engine: Engine) -> None:
    from_text = sampled(engine)
    branch = engine.prompt(engine.tokenizer.encode(PROMPT), seed=3)
    (completion,) = engine.generate([branch], NEW, stop_tokens=[])
    assert completion.tokens == from_text.tokens


def test_seeds_choose_what_is_sampled(engine: Engine) -> None:
    assert sampled(engine, seed=3) == sampled(engine, seed=3)
    assert sampled(engine, seed=3).tokens != sampled(engine, seed=4).tokens


def test_forks_go_on_as_their_parent_would(engine: Engine) -> None:
    root = engine.prompt(PROMPT)
    children = engine.fork(root, 3)
    assert len({root, *children}) == 4
    assert engine.stats()["blocks_used"] == 1
    completions = engine.generate([root, *children], NEW, GREEDY, stop_tokens=[])
    expected = greedy_by_dense_decoder(engine, engine.tokenizer.encode(PROMPT), NEW)
    assert [completion.tokens for completion in completions] == [expected] * 4
    assert [completion.branch for completion in completions] == [root, *children]


def test_forks_sample_apart(engine: Engine) -> None:
    children = engine.fork(engine.prompt(PROMPT), 3)
    completions = engine.generate(children, NEW, stop_tokens=[])
    assert len({tuple(completion.tokens) for completion in completions}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 5])
def test_a_stream_ends_on_what_generate_gives(engine: Engine, chunk: int) -> None:
    branch = engine.prompt(PROMPT, seed=3)
    rounds = [last for (last,) in engine.stream([branch], NEW, stop_tokens=[], chunk=chunk)]
    whole = sampled(engine)
    assert replace(rounds[-1], branch=0) == whole
    for number, so_far in enumerate(rounds, 1):
        done = min(number * chunk, NEW)
        assert so_far.tokens == whole.tokens[:done]
        assert so_far.logprobs == whole.logprobs[:done]
        assert whole.text.startswith(so_far.text)
        assert so_far.finish == ("length" if done == NEW else "running")


def test_a_stop_token_ends_its_branch_only(engine: Engine) -> None:
    free_run = sampled(engine)
    stop = free_run.tokens[4]
    first = free_run.tokens.index(stop) + 1
    branches = [engine.prompt(PROMPT, seed=3), engine.prompt(PROMPT, seed=4)]
    stopped, other = engine.generate(branches, NEW, stop_tokens=[stop])
    assert stopped.finish == "stop_token"
    assert stopped.tokens == free_run.tokens[:first]
    if stop not in (tokens := sampled(engine, seed=4).tokens):
        assert other.tokens == tokens


def test_the_tokenizers_end_of_text_stops_by_default(engine: Engine) -> None:
    (end,) = engine.tokenizer.eos_ids
    assert engine.tokenizer.token_id("<|end|>") == end
    rules = engine.stop_rules((), None)
    assert np.asarray(rules.tokens).tolist() == [end]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, NEW])
def test_a_stop_string_is_cut_off_wherever_chunks_end(engine: Engine, chunk: int) -> None:
    free_run = sampled(engine)
    stop = across_tokens(engine, free_run)
    branch = engine.prompt(PROMPT, seed=3)
    rounds = [
        last
        for (last,) in engine.stream(
            [branch], NEW, stop_strings=["never there", stop], stop_tokens=[], chunk=chunk
        )
    ]
    assert rounds[-1].finish == "stop_string"
    assert rounds[-1].text == free_run.text[: free_run.text.index(stop)]
    assert rounds[-1].tokens == free_run.tokens[: len(rounds[-1].tokens)]
    assert stop in text_of(engine, rounds[-1].tokens)
    assert stop not in text_of(engine, rounds[-1].tokens[:-1])
    for so_far in rounds:
        assert rounds[-1].text.startswith(so_far.text)


def test_a_stop_string_may_be_a_special_tokens_own_text(engine: Engine) -> None:
    end = engine.tokenizer.token_id("<|end|>")
    rules = engine.stop_rules("<|end|>", [])
    assert rules.strings is not None
    assert int(rules.strings.next_state[0, end]) == MATCHED
    free_run = sampled(engine)
    for stop in ("<|end|>", ["<|end|>", across_tokens(engine, free_run)]):
        stopped = sampled(engine, stop_strings=stop)
        assert free_run.text.startswith(stopped.text)
        assert stopped.finish == ("length" if isinstance(stop, str) else "stop_string")


def test_a_bare_text_is_one_stop_string(engine: Engine) -> None:
    stop = across_tokens(engine, sampled(engine))
    assert len(stop) > 1
    assert sampled(engine, stop_strings=stop) == sampled(engine, stop_strings=[stop])


def test_a_branch_gets_the_same_among_any_number(engine: Engine) -> None:
    """Calls of 1, 3 and 5 branches are three programs: tokens agree, logprobs up to rounding."""
    alone = sampled(engine)
    for others in (2, 4):
        branch = engine.prompt(PROMPT, seed=3)
        company = engine.fork(branch, others)
        among, *_ = engine.generate([branch, *company], NEW, stop_tokens=[])
        engine.free([branch, *company])
        assert among.tokens == alone.tokens
        np.testing.assert_allclose(among.logprobs, alone.logprobs, rtol=0, atol=BETWEEN_COUNTS)


def test_text_that_only_begins_a_stop_string_comes_back(engine: Engine) -> None:
    free_run = sampled(engine)
    stop = free_run.text[-1] + "never there"
    assert sampled(engine, stop_strings=[stop]).text == free_run.text


def test_tokens_beyond_the_tokenizers_give_no_text(engine: Engine) -> None:
    beyond = list(range(engine.tokenizer.vocab_size, engine.model.vocab_size))
    for seed in range(20):
        completion = sampled(engine, seed=seed)
        assert completion.text == text_of(engine, completion.tokens)
        if set(completion.tokens) & set(beyond):
            return
    raise AssertionError("no seed sampled such a token")


def test_stats_count_what_was_done(engine: Engine) -> None:
    before = engine.stats()
    root = engine.prompt(list(range(20)))  # a full block and 4 tokens of the next
    children = engine.fork(root, 2)
    engine.generate(children, NEW, GREEDY, stop_tokens=[])
    after = engine.stats()
    assert after["branches"] == 3
    assert after["blocks_used"] == 4  # the full one is shared, the other one copied for each
    assert after["blocks_shared"] == 1
    assert after["sharing_ratio"] == pytest.approx(6 / 4)
    grown = {"prefilled": 20, "generated": 2 * NEW, "reused": 40, "forks": 2, "blocks_copied": 2}
    assert {name: after[name] - before[name] for name in grown} == grown
    assert all(type(value) in (int, float) for value in after.values())


def test_nothing_to_do_is_nothing(engine: Engine) -> None:
    engine.free([])
    assert engine.generate([], NEW) == []
