"""Random sequences of calls, compared with the plain-Python model after each."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from cache.harness import LANES, SMALL, TOKENS, Harness

pytestmark = pytest.mark.slow

ANY_ID = st.integers(-1, SMALL.num_slots)


class CacheMachine(RuleBasedStateMachine):
    """Calls with live, dead, idle, repeated and out-of-range branch ids."""

    def __init__(self) -> None:
        super().__init__()
        self.harness = self.make_harness()

    def make_harness(self) -> Harness:
        return Harness()

    def draw_ids(self, data: st.DataObject) -> list[int]:
        live = sorted(self.harness.model.branches)
        one = st.sampled_from(live) | st.sampled_from(live) | ANY_ID if live else ANY_ID
        return data.draw(st.lists(one, max_size=LANES), label="ids")

    def draw_length(self, data: st.DataObject, branch: int) -> int:
        """Mostly one that the branch can be cut to."""
        held = self.harness.model.branches.get(branch)
        return data.draw(st.integers(-1, len(held.tokens) + 1 if held else 1), label="length")

    @rule(count=st.integers(1, LANES))
    def open(self, count: int) -> None:
        self.harness.open(count)

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        ids = self.draw_ids(data)
        counts = st.lists(st.integers(0, TOKENS + 1), min_size=len(ids), max_size=len(ids))
        self.harness.append(list(zip(ids, data.draw(counts, label="counts"), strict=True)))

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.harness.append([(branch, 1) for branch in self.draw_ids(data)], width=1)

    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        self.harness.fork(self.draw_ids(data))

    @rule(data=st.data())
    def fork_into_slots(self, data: st.DataObject) -> None:
        parents = self.draw_ids(data)
        children = st.lists(ANY_ID, min_size=len(parents), max_size=len(parents))
        self.harness.fork(parents, data.draw(children, label="children"))

    @rule(data=st.data())
    def fork_a_part(self, data: st.DataObject) -> None:
        parents = self.draw_ids(data)
        self.harness.fork(parents, None, [self.draw_length(data, parent) for parent in parents])

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        self.harness.truncate(
            [(branch, self.draw_length(data, branch)) for branch in self.draw_ids(data)]
        )

    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        self.harness.free(self.draw_ids(data))

    def teardown(self) -> None:
        live = sorted(self.harness.model.branches)
        for first in range(0, len(live), LANES):
            self.harness.free(live[first : first + LANES])
        assert self.harness.blocks_free() == SMALL.num_blocks


CacheMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40)
TestCacheMachine = CacheMachine.TestCase
