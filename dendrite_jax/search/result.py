"""What every search returns."""

from __future__ import annotations

from flax import struct
from jax import Array

from dendrite_jax.cache import Ledger
from dendrite_jax.engine import State
from dendrite_jax.search.tree import SearchTree


class SearchResult(struct.PyTreeNode):
    """The tree, the best answers first, and what they cost; of a search that may go on yet.

    `report.explain` says why a problem has no answer, or fewer than it may have.
    """

    tree: SearchTree
    answers: Array  # i32[problems, n], nodes of the tree; NO_NODE where there are fewer
    values: Array  # f32[problems, n], what the answers are ranked by; −inf where there is none
    tokens: Array  # i32[problems, n, path_tokens], from the root's prompt on, NO_TOKEN past the end
    length: Array  # i32[problems, n]
    frontier: Array  # i32[problems, m], nodes that the search would go on from; NO_NODE for none
    cut: Array  # bool[problems], read before the problem's search was over
    at_capacity: Array  # bool[problems], the search grew less than it wanted for want of room
    ledger: Ledger  # of this search alone, all problems; `scored` counts a scorer's own model's
    peak_blocks: Array  # i32[], most blocks in use at once since the state was made

    @classmethod
    def of(
        cls,
        tree: SearchTree,
        answers: Array,
        values: Array,
        *,
        frontier: Array,
        cut: Array,
        at_capacity: Array,
        max_depth: int,
        state: State,
        ledger: Ledger,
    ) -> SearchResult:
        """Reads the answers' paths off the tree.

        Args:
          tree: the whole tree.
          answers: i32[problems, n].
          values: f32[problems, n].
          frontier: i32[problems, m].
          cut: bool[problems].
          at_capacity: bool[problems].
          max_depth: of the deepest node (static).
          state: the engine state after the search.
          ledger: of the search.
        """
        tokens, length = tree.paths(answers, max_depth)
        return cls(
            tree=tree,
            answers=answers,
            values=values,
            tokens=tokens,
            length=length,
            frontier=frontier,
            cut=cut,
            at_capacity=at_capacity,
            ledger=ledger,
            peak_blocks=state.cache.peak_blocks,
        )
