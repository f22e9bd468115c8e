"""What one branch generated, gathered chunk by chunk, as a text that only grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dendrite_jax.engine import FINISH_NAMES
from dendrite_jax.text import TextStream, Tokenizer


@dataclass(frozen=True)
class Completion:
    """What one branch generated."""

    branch: int
    tokens: list[int]
    text: str
    logprobs: list[float]
    raw_logprobs: list[float]
    finish: str
    """One of "length", "stop_token", "stop_string", "grammar_dead"; "running" in a stream that goes
    on. A branch that left its grammar, or whose grammar llguidance gave up, is "grammar_dead"."""


class Record:
    """What one branch of a stream has so far."""

    def __init__(self, branch: int, tokenizer: Tokenizer, stop_strings: Sequence[str]) -> None:
        self.branch = branch
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.raw_logprobs: list[float] = []
        self.finish = "running"
        self._text = ""
        self._stream = TextStream(tokenizer, continuation=True)
        self._vocab_size = tokenizer.vocab_size
        self._stop_strings = stop_strings

    @property
    def running(self) -> bool:
        return self.finish == "running"

    def take(
        self,
        tokens: np.ndarray,
        count: int,
        logprobs: np.ndarray,
        raw_logprobs: np.ndarray,
        finish: int,
        *,
        last: bool,
    ) -> None:
        if not self.running:
            return
        new = tokens[:count].tolist()
        self.tokens += new
        self.logprobs += logprobs[:count].tolist()
        self.raw_logprobs += raw_logprobs[:count].tolist()
        # An embedding may have more rows than the tokenizer has tokens; those give no text.
        self._text += self._stream.feed(t for t in new if t < self._vocab_size)
        reason = FINISH_NAMES[finish]
        if reason != "length" or last:
            self.finish = reason
            self._text += self._stream.finish()

    def completion(self) -> Completion:
        text = self._text
        if self.finish == "stop_string":
            text = text[: min(i for s in self._stop_strings if (i := text.find(s)) >= 0)]
        elif self.running:
            text = text[: len(text) - _begun(text, self._stop_strings)]
        return Completion(
            self.branch,
            list(self.tokens),
            text,
            list(self.logprobs),
            list(self.raw_logprobs),
            self.finish,
        )


def _begun(text: str, stop_strings: Sequence[str]) -> int:
    """The length of the longest end of the text that begins a stop string."""
    lengths = (n for stop in stop_strings for n in range(1, len(stop)) if text.endswith(stop[:n]))
    return max(lengths, default=0)
