"""A branch, however it came about, is what replaying its tokens in a fresh state gives."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from jax.typing import ArrayLike

from cache.model import CacheModel
from dendrite_jax.cache import debug
from engine.programs import (
    CACHE,
    DECODER_TOLERANCE,
    LANES,
    PROMPT,
    branch_tokens,
    fork,
    free,
    next_logits,
    pad,
    rewind,
    run_prefill,
    start,
    step,
    tiny_decoder,
    truncate,
)
from models.dense_decoder import dense_logits

MODEL = tiny_decoder()
TOKEN = st.integers(0, MODEL.vocab_size - 1)


class BranchMachine(RuleBasedStateMachine):
    """Random prefills, steps, forks, cuts and frees over one pool, blocks of 4 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.state, ids = start(MODEL, [[1, 2, 3]])
        self.books = CacheModel(CACHE)
        self.books.open([True] * LANES, ids.tolist())
        self.books.append(ids.tolist(), [[1, 2, 3], [], [], []], PROMPT)

    def draw_live(self, data: st.DataObject, *, unique: bool) -> list[int]:
        live = st.sampled_from(sorted(self.books.branches))
        return data.draw(st.lists(live, min_size=1, max_size=LANES, unique=unique), label="ids")

    @precondition(lambda self: self.books.branches)
    @rule(data=st.data())
    def prefill(self, data: st.DataObject) -> None:
        ids = self.draw_live(data, unique=True)
        prompts = [data.draw(st.lists(TOKEN, min_size=1, max_size=7)) for _ in ids]
        self.state, stepped = run_prefill(MODEL, self.state, ids, prompts)
        rest: list[list[int]] = [[]] * (LANES - len(ids))
        taken = self.books.append(pad(ids).tolist(), prompts + rest, PROMPT)
        assert stepped.ok.tolist() == taken
        self.check_logits(ids, stepped.logits, taken)

    @precondition(lambda self: self.books.branches)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        ids = pad(self.draw_live(data, unique=True))
        tokens = pad([data.draw(TOKEN) for _ in ids])
        self.state, stepped = step(MODEL, self.state, ids, tokens)
        taken = self.books.append(ids.tolist(), tokens[:, None].tolist(), 1)
        assert stepped.ok.tolist() == taken
        self.check_logits(ids.tolist(), stepped.logits, taken)

    @precondition(lambda self: self.books.branches)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        parents = pad(self.draw_live(data, unique=False))
        self.state, children = fork(self.state, parents)
        self.books.fork(parents.tolist(), None, children.tolist())

    @precondition(lambda self: self.books.branches)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """Truncates branches, or forks parts of them, and rewinds what comes of it."""
        ids = self.draw_live(data, unique=True)
        lengths = [len(self.books.branches[slot].tokens) for slot in ids]
        kept = pad([data.draw(st.integers(0, length), label="kept") for length in lengths])
        if data.draw(st.booleans(), label="truncate"):
            self.state, cut = truncate(self.state, pad(ids), kept)
            assert cut.tolist() == self.books.truncate(pad(ids).tolist(), kept.tolist())
        else:
            self.state, children = fork(self.state, pad(ids), kept)
            self.books.fork(pad(ids).tolist(), None, children.tolist(), kept.tolist())
            ids = children[: len(ids)].tolist()
        ids = [slot for slot in ids if slot >= 0 and self.books.branches[slot].tokens]
        self.state, stepped = rewind(MODEL, self.state, pad(ids))
        assert stepped.ok.tolist() == (pad(ids) >= 0).tolist()
        self.check_logits(ids, stepped.logits, [True] * len(ids))

    @precondition(lambda self: len(self.books.branches) > 3)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        ids = pad(self.draw_live(data, unique=True)[:2])
        self.state = free(self.state, ids)
        self.books.free(ids.tolist())

    def check_logits(self, ids: list[int], logits: jax.Array, taken: list[bool]) -> None:
        """Compares logits with the dense decoder's of the same tokens."""
        for lane, slot in enumerate(ids):
            if taken[lane]:
                tokens = np.array([self.books.branches[slot].tokens])
                expected = dense_logits(MODEL.config, MODEL.params, tokens)[0, -1]
                assert_close(np.asarray(logits[lane]), expected)

    def teardown(self) -> None:
        """Replays every branch that is left, four at a time, in fresh states."""
        debug.check(self.state.cache)
        held = {
            slot: branch.tokens for slot, branch in self.books.branches.items() if branch.tokens
        }
        slots = sorted(held)
        for first in range(0, len(slots), LANES):
            group = slots[first : first + LANES]
            tokens, length = branch_tokens(self.state, pad(group))
            for lane, slot in enumerate(group):
                assert tokens[lane, : length[lane]].tolist() == held[slot]
            fresh, ids = start(MODEL, [held[slot][:PROMPT] for slot in group])
            for begin in range(PROMPT, CACHE.max_context, PROMPT):
                rest = [held[slot][begin : begin + PROMPT] for slot in group]
                fresh, _ = run_prefill(MODEL, fresh, ids, rest)
            found = np.asarray(next_logits(MODEL, self.state, pad(group)))
            replayed = np.asarray(next_logits(MODEL, fresh, ids))
            for lane in range(len(group)):
                assert_close(found[lane], replayed[lane])


def assert_close(found: ArrayLike, expected: np.ndarray) -> None:
    error = np.max(np.abs(found - expected)) / np.max(np.abs(expected))
    assert error < DECODER_TOLERANCE


BranchMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=20)
TestBranchMachine = BranchMachine.TestCase
