"""A plain-Python cache, the oracle of these tests: dicts and lists, one lane after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dendrite_jax.cache.state import (
    BAD_LENGTH,
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
        self,
        parents: Sequence[int],
        children: Sequence[int] | None,
        granted: Sequence[int],
        length: Sequence[int] | None = None,
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
            kept = len(source.tokens) if length is None else length[lane]
            if not 0 <= kept <= len(source.tokens):
                self.misuse |= BAD_LENGTH
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
            blocks = source.blocks[: self._blocks(kept)]
            error = source.error if kept == len(source.tokens) else 0
            made[slot] = Branch(source.tokens[:kept], blocks, error)
            self.ledger["forks"] += 1
            self.ledger["reused"] += kept
        self.branches.update(made)

    def truncate(self, ids: Sequence[int], lengths: Sequence[int]) -> list[bool]:
        """Follows `truncate`; which branches are cut."""
        cut = []
        for slot, kept in zip(self._usable(ids), lengths, strict=True):
            branch = None if slot is None else self.branches[slot]
            cut.append(branch is not None and 0 <= kept <= len(branch.tokens))
            if branch is not None and not cut[-1]:
                self.misuse |= BAD_LENGTH
            elif branch is not None:
                branch.error = branch.error if kept == len(branch.tokens) else 0
                del branch.tokens[kept:], branch.blocks[self._blocks(kept) :]
        return cut

    def resize(self, config: CacheConfig) -> None:
        """Follows `resize` to capacities that hold what is held."""
        before, self.config = self.config, config
        lifted = OUT_OF_BLOCKS if config.num_blocks > before.num_blocks else 0
        if config.max_context > before.max_context:
            lifted |= CONTEXT_FULL
        for branch in self.branches.values():
            branch.error &= ~lifted
        if config.num_slots > before.num_slots:
            self.misuse &= ~OUT_OF_SLOTS
        if config.num_blocks > before.num_blocks:
            self.blocks_short = 0

    def free(self, ids: Sequence[int]) -> None:
        """Follows `free`."""
        for slot in self._usable(ids):
            if slot is not None:
                del self.branches[slot]

    def append(self, ids: Sequence[int], tokens: Sequence[Sequence[int]], width: int) -> list[bool]:
        """Follows an `append` of up to `width` tokens a lane; which lanes take theirs.

        Lanes are served in order; one that does not fit takes nothing.
        """
        taken = [False] * len(ids)
        writes: dict[int, Branch] = {}
        for lane, slot in enumerate(self._usable(ids)):
            branch = None if slot is None else self.branches[slot]
            if branch is None:
                continue
            if len(tokens[lane]) > width:
                self.misuse |= COUNT_TOO_LARGE
            elif not branch.error and tokens[lane]:
                if len(branch.tokens) + len(tokens[lane]) > self.config.max_context:
                    branch.error = CONTEXT_FULL
                else:
                    writes[lane] = branch
        self._count_short([(branch, tokens[lane]) for lane, branch in writes.items()])
        for lane, branch in writes.items():
            holders = self.holders()
            copies, fresh = self._need(branch, tokens[lane], holders)
            taken[lane] = copies + fresh <= self.config.num_blocks - len(holders)
            if not taken[lane]:
                branch.error = OUT_OF_BLOCKS
                continue
            if copies:
                branch.blocks[-1] = Block()
                self.ledger["blocks_copied"] += 1
            branch.blocks.extend(Block() for _ in range(fresh))
            branch.tokens.extend(tokens[lane])
        self.peak_blocks = max(self.peak_blocks, len(self.holders()))
        return taken

    def _blocks(self, tokens: int) -> int:
        """Blocks that so many tokens of a branch are in."""
        return -(-tokens // self.config.block_size)

    def _need(
        self, branch: Branch, tokens: Sequence[int], holders: Counter[Block]
    ) -> tuple[bool, int]:
        """Whether a write copies the branch's last block, and how many more blocks it takes."""
        size = self.config.block_size
        fresh = self._blocks(len(branch.tokens) + len(tokens)) - len(branch.blocks)
        partial = len(branch.tokens) % size != 0
        return partial and holders[branch.blocks[-1]] > 1, fresh

    def _count_short(self, writes: Sequence[tuple[Branch, Sequence[int]]]) -> None:
        """Counts the blocks that a call would take if there were enough, beyond the free ones."""
        holders = self.holders()
        asked = len(holders) - self.config.num_blocks
        for branch, tokens in writes:
            copies, fresh = self._need(branch, tokens, holders)
            if copies:
                holders[branch.blocks[-1]] -= 1
            asked += copies + fresh
        self.blocks_short = max(self.blocks_short, asked)

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
