"""Trees grown with transformers, whose branches are copies of a cache, in a process of its own.

A batch is the children of some nodes of a level: the cache rows of the parents are copied once a
child, then all children sample together. It holds as many branches as `TreeSizes.batch_tokens` lets
in. One batch of each level is timed; a larger level takes as many as it needs.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

from dendrite_jax.benchmarks.decode.peer import random_peer
from dendrite_jax.benchmarks.harness.peer_process import answer, arguments, run_peer
from dendrite_jax.benchmarks.tree.sizes import CPU, H100, BatchCost, TreeSizes


class CopiedTree(NamedTuple):
    """What a tree below one prefix took."""

    prefill: float  # seconds
    levels: list[BatchCost]  # a batch of each


class Peer(NamedTuple):
    """The peer's versions, and its times by prefix; None for one that did not fit the memory."""

    environment: dict[str, str]
    trees: dict[int, CopiedTree | None]


def measure(shape: str | None, sizes: TreeSizes | None) -> Peer | None:
    """Runs the peer on a shape and sizes, or on the platform's; None if it isn't installed."""
    measured = run_peer("tree.peer", shape, sizes and dataclasses.asdict(sizes))
    if measured is None:
        return None
    trees: dict[int, CopiedTree | None] = {}
    for prefix, tree in measured["trees"].items():
        levels = tree and [BatchCost(*level) for level in tree["levels"]]
        trees[int(prefix)] = tree and CopiedTree(tree["prefill"], levels)
    return Peer(measured["environment"], trees)


def _run(shape: str | None, given: dict[str, Any] | None) -> dict[str, Any]:
    import torch
    import transformers

    on_gpu = torch.cuda.is_available()
    sizes = TreeSizes(**given) if given else (H100 if on_gpu else CPU)
    model = random_peer(shape or ("llama-3-8b" if on_gpu else "small"), on_gpu)
    trees: dict[int, Any] = {}
    for prefix in sizes.prefixes:
        try:
            trees[prefix] = _levels(model, sizes, prefix)
        except torch.OutOfMemoryError:
            trees[prefix] = None
    return {
        "environment": {"torch": torch.__version__, "transformers": transformers.__version__},
        "trees": trees,
    }


def _levels(model: Any, sizes: TreeSizes, prefix: int) -> dict[str, Any]:
    """Seconds of the prefill, and (branches, seconds) of a batch of each level."""
    import torch
    from transformers import DynamicCache

    prompt = torch.randint(model.config.vocab_size, (1, prefix), device=model.device)
    lanes = sizes.batch_lanes(prefix)
    levels: list[tuple[int, float]] = []
    with torch.inference_mode():
        for _ in range(2):  # the first run warms up
            cache = DynamicCache(config=model.config)
            start = _now(model)
            logits = model(prompt, past_key_values=cache, logits_to_keep=1).logits
            prefill = _now(model) - start
        _grow(model, cache, logits, torch.zeros(sizes.branching, dtype=torch.long), sizes.thought)
        for count in sizes.level_thoughts:
            batch = min(count, lanes // sizes.branching * sizes.branching)
            parents = torch.arange(batch // sizes.branching).repeat_interleave(sizes.branching)
            start = _now(model)
            cache, logits, _ = _grow(model, cache, logits, parents, sizes.thought)
            levels.append((batch, _now(model) - start))
    return {"prefill": prefill, "levels": levels}


def _grow(model: Any, cache: Any, logits: Any, parents: Any, thought: int) -> tuple[Any, Any, Any]:
    """Copies the rows of a cache that `parents` names and samples a thought in each copy.

    Returns:
      The children's cache, the logits of their next tokens, and tokens [children, thought].
    """
    import torch
    from transformers import DynamicCache

    parents = parents.to(model.device)
    children = DynamicCache(config=model.config)
    for index, layer in enumerate(cache.layers):
        children.update(layer.keys[parents], layer.values[parents], index)
    logits = logits[parents]
    sampled = []
    for _ in range(thought):
        probabilities = torch.softmax(logits[:, -1].float(), dim=-1)
        tokens = torch.multinomial(probabilities, 1)
        sampled.append(tokens)
        logits = model(tokens, past_key_values=children, logits_to_keep=1).logits
    return children, logits, torch.cat(sampled, dim=1)


def _now(model: Any) -> float:
    """The time once the device has nothing left to do."""
    import torch

    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    answer(_run(*arguments()))
