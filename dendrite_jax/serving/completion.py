"""What one branch generated, gathered chunk by chunk, as a text that only grows."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dendrite_jax.engine import FINISH_NAMES, ByteAutomaton


@dataclass(frozen=True)
class Completion:
    """What one branch generated."""

    branch: int
    tokens: list[int]
    text: str
    logprobs: list[float]
    raw_logprobs: list[float]
    finish: str
    """One of "length", "stop_token", "stop_string", "grammar_dead", "bad_logits"; "running" in a
    stream that goes on. A branch that left its grammar, or whose grammar llguidance gave up, is
    "grammar_dead"; one whose model gave NaN or infinite logits is "bad_logits", and is flagged."""


@dataclass(frozen=True)
class TokenTexts:
    """What a token adds to a text, and what stop strings see of it."""

    visible: Sequence[bytes | None]
    """The bytes of each id; none for a special one."""
    matched: Sequence[bytes | None]
    """The same with the special tokens' own texts; None breaks a match."""


class GrowingText:
    """The text of a branch: what it has of it can't be taken back.

    It reads tokens with the automaton that the device runs, so that both see a stop string at the
    same token. What may be the beginning of one is held back, as is half a character.
    """

    def __init__(self, texts: TokenTexts, stops: ByteAutomaton | None) -> None:
        self.text = ""
        self._texts = texts
        self._stops = stops
        self._state = 0
        self._held: list[tuple[int, bool]] = []  # bytes not yet in the text, and which are visible
        self._kept: int | None = None  # how many of them stand before a stop string, once it is met
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if self._kept is None:
                self._read(token)
            else:
                self._held += [(byte, True) for byte in self._texts.visible[token] or b""]

    def finish(self, cut: bool) -> None:
        """Ends the text, before the stop string where it is `cut`."""
        self._release(len(self._held) if not cut or self._kept is None else self._kept)
        self.text += self._decoder.decode(b"", final=True)

    def _read(self, token: int) -> None:
        stops, matched = self._stops, self._texts.matched[token]
        visible = self._texts.visible[token] or b""
        if stops is None or matched is None:
            self._state = 0
            self._held += [(byte, True) for byte in visible]
            self._release(len(self._held))
            return
        for place, byte in enumerate(matched):
            self._state = int(stops.next_state[self._state, byte])
            self._held.append((byte, bool(visible)))
            if longest := int(stops.longest[self._state]):
                self._kept = len(self._held) - longest
                self._held += [(byte, bool(visible)) for byte in matched[place + 1 :]]
                return
        self._release(len(self._held) - int(stops.depth[self._state]))

    def _release(self, count: int) -> None:
        released, self._held = self._held[:count], self._held[count:]
        self.text += self._decoder.decode(bytes(byte for byte, visible in released if visible))


class Record:
    """What one branch of a stream has so far."""

    def __init__(self, branch: int, texts: TokenTexts, stops: ByteAutomaton | None) -> None:
        self.branch = branch
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.raw_logprobs: list[float] = []
        self.finish = "running"
        self._text = GrowingText(texts, stops)

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
        self._text.feed(new)
        reason = FINISH_NAMES[finish]
        if reason != "length" or last:
            self.finish = reason
            self._text.finish(cut=reason == "stop_string")

    def completion(self) -> Completion:
        return Completion(
            self.branch,
            list(self.tokens),
            self._text.text,
            list(self.logprobs),
            list(self.raw_logprobs),
            self.finish,
        )
