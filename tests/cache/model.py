"""A plain-Python cache, the oracle of these tests: dicts and lists, one lane after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dendrite_jax.cache.state import (
    CONTEXT_FULL,
    COUNT_TOO_LARGE,
    DUPLICATE_BRANCH,
    OUT_OF_BLOCKS,
    OUT_OF_SLOTS,
    SLOT_IN_USE,
    UNKNOWN_BRANCH,
    CacheConfig,
)


class Block:
    """A physical block; only its identity matters, which block id it has is up to the cache."""


@dataclass
class Branch:
    """A held branch: all its tokens, and the blocks that hold them in order."""

    tokens: list[int] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    error: int = 0


@dataclass
class Write:
    """What one lane of an append needs."""

    branch: Branch
    tokens: Sequence[int]
    copies: bool  # its partly filled last block has another holder
    fresh: int  # blocks beyond those it holds
    left_by: list[int]  # earlier writes of the call that must leave the last block to this one

    @property
    def need(self) -> int:
        return self.fresh + self.copies


class CacheModel:
    """What a cache holds after a sequence of calls."""

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self.branches: dict[int, Branch] = {}  # by slot
        self.misuse = 0
        self.peak_blocks = 0
        self.blocks_short = 0
        self.ledger = dict.fromkeys(
            ("prefilled", "generated", "scored", "reused", "forks", "blocks_copied", "steps"), 0
        )

    @property
    def max_context(self) -> int:
        size = self.config.block_size
        return -(-self.config.max_context // size) * size

    def holders(self) -> Counter[Block]:
        """How many branches hold each block."""
        return Counter(block for branch in self.branches.values() for block in branch.blocks)

    def open(self, wanted: Sequence[bool], granted: Sequence[int]) -> None:
        """Follows `open_branches`; `granted` are the ids that it gave."""
        for want, slot in zip(wanted, granted, strict=True):
            if not want:
                assert slot == -1
            elif self._takes_slot(slot):
                self.branches[slot] = Branch()

    def fork(
        self, parents: Sequence[int], children: Sequence[int] | None, granted: Sequence[int]
    ) -> None:
        """Follows `fork`; `granted` are the ids that it gave."""
        made: dict[int, Branch] = {}
        for lane, (parent, slot) in enumerate(zip(parents, granted, strict=True)):
            if parent < 0:
                assert slot == -1
                continue
            source = self.branches.get(parent)
            if source is None:
                self.misuse |= UNKNOWN_BRANCH
                assert slot == -1
                continue
            if children is not None:
                child = children[lane]
                free = 0 <= child < self.config.num_slots and child not in self.branches
                if not free or child in made:
                    self.misuse |= SLOT_IN_USE
                    assert slot == -1
                    continue
                assert slot == child
            elif not self._takes_slot(slot, made):
                continue
            made[slot] = Branch(list(source.tokens), list(source.blocks), source.error)
            self.ledger["forks"] += 1
            self.ledger["reused"] += len(source.tokens)
        self.branches.update(made)

    def free(self, ids: Sequence[int]) -> None:
        """Follows `free`."""
        for slot in self._usable(ids):
            if slot is not None:
                del self.branches[slot]

    def append(self, ids: Sequence[int], tokens: Sequence[Sequence[int]], width: int) -> list[bool]:
        """Follows an `append` of up to `width` tokens a lane; which lanes take theirs.

        Lanes are served in order, and a lane that is refused for want of blocks still counts as
        having asked for them.
        """
        holders = self.holders()
        num_free = self.config.num_blocks - len(holders)
        taken: list[bool] = []
        writes: dict[int, Write] = {}
        asked = 0
        for lane, slot in enumerate(self._usable(ids)):
            taken.append(False)
            branch = None if slot is None else self.branches[slot]
            if branch is None:
                continue
            if len(tokens[lane]) > width:
                self.misuse |= COUNT_TOO_LARGE
                continue
            if branch.error or not tokens[lane]:
                continue
            if len(branch.tokens) + len(tokens[lane]) > self.max_context:
                branch.error = CONTEXT_FULL
                continue
            write = self._plan(branch, tokens[lane], writes, holders)
            writes[lane] = write
            asked += write.need
            taken[lane] = write.need == 0 or asked <= num_free
        self.blocks_short = max(self.blocks_short, asked - num_free)

        # A lane that counted on being the last holder of a block is refused with those before it.
        for lane, write in writes.items():
            taken[lane] &= write.copies or all(taken[other] for other in write.left_by)
        for lane, write in writes.items():
            if taken[lane]:
                self._write(write)
            else:
                write.branch.error = OUT_OF_BLOCKS
        self.peak_blocks = max(self.peak_blocks, len(self.holders()))
        return taken

    def _plan(
        self,
        branch: Branch,
        tokens: Sequence[int],
        writes: dict[int, Write],
        holders: Counter[Block],
    ) -> Write:
        size = self.config.block_size
        fresh = -(-(len(branch.tokens) + len(tokens)) // size) - len(branch.blocks)
        if len(branch.tokens) % size == 0:
            return Write(branch, tokens, False, fresh, [])
        last = branch.blocks[-1]
        left_by = [lane for lane, write in writes.items() if last in write.branch.blocks[-1:]]
        return Write(branch, tokens, holders[last] > 1 + len(left_by), fresh, left_by)

    def _write(self, write: Write) -> None:
        if write.copies:
            write.branch.blocks[-1] = Block()
            self.ledger["blocks_copied"] += 1
        write.branch.blocks.extend(Block() for _ in range(write.fresh))
        write.branch.tokens.extend(write.tokens)

    def _takes_slot(self, slot: int, also_taken: dict[int, Branch] | None = None) -> bool:
        """Whether a lane that wants any slot gets one; checks the slot it was given."""
        taken = self.branches.keys() | (also_taken or {}).keys()
        if len(taken) == self.config.num_slots:
            self.misuse |= OUT_OF_SLOTS
            assert slot == -1
            return False
        assert 0 <= slot < self.config.num_slots
        assert slot not in taken
        return True

    def _usable(self, ids: Sequence[int]) -> list[int | None]:
        """The slot of each lane, None for an idle or misused one."""
        slots: list[int | None] = []
        for slot in ids:
            if slot >= 0 and slot not in self.branches:
                self.misuse |= UNKNOWN_BRANCH
            elif slot in slots:
                self.misuse |= DUPLICATE_BRANCH
            slots.append(slot if slot in self.branches and slot not in slots else None)
        return slots
