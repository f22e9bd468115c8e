"""The tree of thoughts of `tasks/game24` as a user of transformers would write it.

`generate` samples the steps of one kept path at a time, from a copy of that path's key-value cache.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.rules import State, apply_step, as_state, format_prompt, judge
from dendrite_jax.tasks.game24.game.token_rules import LINE_TOKENS
from dendrite_jax.text import Tokenizer


@dataclass
class _Path:
    """A kept path: its tokens, the numbers left, its steps and its value."""

    tokens: list[int]
    left: State
    lines: list[str]
    value: float = 0.0


class TransformersSearch:
    """Breadth-first tree of thoughts with the embedded model, in float32 on the CPU."""

    def __init__(self, tokenizer: Tokenizer, breadth: int, proposals: int) -> None:
        import torch
        from transformers import LlamaForCausalLM

        self._torch = torch
        with as_file(files("dendrite_jax.tasks.game24").joinpath("weights")) as folder:
            self._model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._tokenizer = tokenizer
        self._breadth, self._proposals = breadth, proposals

    def solve(self, puzzle: Sequence[int], target: int = 24) -> bool:
        """Whether one of the answers kept makes the target."""
        numbers = as_state(puzzle)
        prompt = [vocab.BOS, *self._tokenizer.encode(format_prompt(numbers, target))]
        frontier = [_Path(prompt, numbers, [])]
        for level in range(3):
            best: dict[State, _Path] = {}
            share = -(-self._proposals // len(frontier))
            for path in frontier:
                suffix = [vocab.SURE, vocab.NEWLINE] if level else []
                for child in self._expand(path, suffix, share):
                    if child.left not in best or best[child.left].value < child.value:
                        best[child.left] = child
            frontier = sorted(best.values(), key=lambda path: -path.value)[: self._breadth]
            if not frontier:
                return False
        return any(judge(puzzle, target, path.lines) for path in frontier)

    def _expand(self, path: _Path, suffix: list[int], count: int) -> list[_Path]:
        """Samples `count` steps from one path and scores the legal ones."""
        torch = self._torch
        tokens = path.tokens + suffix
        with torch.inference_mode():
            ids = torch.tensor([tokens])
            prefix = self._model(ids[:, :-1], use_cache=True).past_key_values
            cache = copy.deepcopy(prefix)
            cache.batch_repeat_interleave(count)
            out = self._model.generate(
                ids.repeat(count, 1),
                attention_mask=torch.ones(count, len(tokens), dtype=torch.long),
                past_key_values=cache,
                do_sample=True,
                top_k=0,
                max_new_tokens=LINE_TOKENS,
                eos_token_id=vocab.LEFT_CLOSE,
                pad_token_id=vocab.PAD,
            )
            verdicts = self._verdicts(out)
        children = []
        for row, value in zip(out[:, len(tokens) :].tolist(), verdicts, strict=True):
            step = [token for token in row if token != vocab.PAD]
            line = self._tokenizer.decode(step)
            left = apply_step(path.left, line)
            if left is not None:
                children.append(_Path(tokens + step, left, [*path.lines, line], value))
        return children

    def _verdicts(self, sequences: Any) -> list[float]:
        """log P(sure) of the two verdicts after the last real token of each row."""
        torch = self._torch
        mask = sequences != vocab.PAD
        logits = self._model(sequences, attention_mask=mask.long()).logits
        last = logits[torch.arange(len(sequences)), mask.sum(1) - 1]
        pair = last[:, [vocab.SURE, vocab.IMPOSSIBLE]]
        return torch.log_softmax(pair, dim=-1)[:, 0].tolist()
