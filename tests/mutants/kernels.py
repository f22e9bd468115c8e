"""Mutations of the kernels' plain-XLA twins, and of the plan of tree attention."""

from __future__ import annotations

from mutants.mutant import Mutant

_CHUNKS = "kernels/chunks.py"
_PLAN = "kernels/tree_attention/plan.py"
_PREFILL = ("kernels/test_paged_prefill.py::TestXla::test_matches_dense_float64",)
_DECODE = ("kernels/test_tree_attention.py::TestXla::test_matches_dense_float64",)
_IN_TURNS = ("kernels/test_tree_attention.py::TestXlaInTurns::test_matches_dense_float64",)
_SHARED = (
    "kernels/test_tree_attention.py::test_a_column_is_shared_where_all_lanes_see_one_block_whole",
)
_COVERED = ("kernels/test_tree_plan.py::test_every_lane_and_block_is_covered_once",)

MUTANTS = (
    Mutant(
        "a window of prefill sees one token more",
        "kernels/paged_prefill/xla.py",
        "jnp.maximum(position + 1 - window, 0)",
        "jnp.maximum(position - window, 0)",
        _PREFILL,
    ),
    Mutant(
        "a window of decode sees one token less",
        "kernels/tree_attention/xla.py",
        "jnp.maximum(length - window, 0)",
        "jnp.maximum(length - window + 1, 0)",
        _DECODE,
    ),
    Mutant(
        "prefill sees the token after its own",
        "kernels/paged_prefill/xla.py",
        "end = jnp.minimum(position + 1, held[:, None])",
        "end = jnp.minimum(position + 2, held[:, None])",
        _PREFILL,
    ),
    Mutant(
        "partial attentions are merged by each other's weight",
        "kernels/merge.py",
        "jnp.exp(lse - finite), jnp.exp(other_lse - finite)",
        "jnp.exp(other_lse - finite), jnp.exp(lse - finite)",
        _IN_TURNS,
    ),
    Mutant(
        "what was read before is not scaled down by a higher score",
        _CHUNKS,
        "softmax.acc * shrink[..., None] + added",
        "softmax.acc + added",
        _IN_TURNS,
    ),
    Mutant(
        "a soft cap caps at one",
        _CHUNKS,
        "scores = softcap * jnp.tanh(scores / softcap)",
        "scores = jnp.tanh(scores / softcap)",
        _PREFILL,
    ),
    Mutant(
        "query heads read the wrong kv heads",
        _CHUNKS,
        "q.reshape(rows, queries, kv_heads, heads // kv_heads, head_dim)",
        "q.reshape(rows, queries, heads // kv_heads, kv_heads, head_dim).swapaxes(2, 3)",
        _DECODE,
    ),
    Mutant(
        "blocks in which lanes differ are read as shared",
        "kernels/tree_attention/xla.py",
        "same = whole & (table == table[jnp.argmax(sees)])",
        "same = whole",
        _SHARED,
    ),
    Mutant(
        "a block that a lane sees partly is read as shared",
        "kernels/tree_attention/xla.py",
        "whole = (jnp.arange(max_blocks) + 1) * block_size <= end[:, None]",
        "whole = jnp.arange(max_blocks) * block_size < end[:, None]",
        _SHARED,
    ),
    Mutant(
        "rotary embedding turns the wrong way",
        "kernels/rope_append/reference.py",
        "[first * cos - second * sin, second * cos + first * sin]",
        "[first * cos + second * sin, second * cos - first * sin]",
        ("kernels/test_pool_writes.py::TestRopeAppendXla::test_matches_float64",),
    ),
    Mutant(
        "keys are written one place too early",
        "kernels/append_kv/reference.py",
        "k_pool.at[layer, block, :, offset]",
        "k_pool.at[layer, block, :, offset - 1]",
        ("kernels/test_pool_writes.py::test_append_writes_each_token_to_its_place",),
    ),
    Mutant(
        "a copied block has the keys as values",
        "kernels/copy_blocks/reference.py",
        ".set(v_pool[:, source], mode",
        ".set(k_pool[:, source], mode",
        (
            "kernels/test_pool_writes.py::TestCopyBlocksXla::test_copies_all_layers_and_nothing_else",
        ),
    ),
    Mutant(
        "a draft is masked by the nodes that see it",
        "kernels/verify_attention/reference.py",
        "seen = seen[:, :, None, None]",
        "seen = jnp.flip(seen, 1)[:, :, None, None]",
        ("kernels/test_verify_attention.py::TestXla::test_matches_dense_float64",),
    ),
    Mutant(
        "a wide tile lists the blocks that all its lanes share for each",
        _PLAN,
        "wide_begin = jnp.where(place % wide == 0, 0, shared[:-1])",
        "wide_begin = jnp.zeros_like(place)",
        _COVERED,
    ),
    Mutant(
        "an entry's first lane is not counted from its tile",
        _PLAN,
        "info = pack(column, lane - tile_lane, end)",
        "info = pack(column, lane, end)",
        _COVERED,
    ),
    Mutant(
        "a last block that is partly filled counts as whole",
        _PLAN,
        "common = jnp.minimum(within, held - 1)",
        "common = jnp.minimum(within, held)",
        ("kernels/test_tree_plan.py::test_every_lane_reads_the_leading_entries_of_a_tile_whole",),
    ),
)
