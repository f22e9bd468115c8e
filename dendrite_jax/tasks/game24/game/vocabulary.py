"""The 512 tokens of the embedded model and the ids that other modules name.

Byte-level, so that any text round-trips: three special tokens, the 256 bytes, then whole words. A
number from 0 to 199 with its leading space is one token, a fraction is two (` 13`, `/9`). In the
JSON form a number is spelt in digits, the rest of a step in eight tokens of punctuation and keys.
"""

from __future__ import annotations

from dendrite_jax.tasks.game24.game.rules import MAX_DENOMINATOR, MAX_NUMERATOR

VOCABULARY_SIZE = 512
BOS, EOS, PAD = 0, 1, 2
SPECIAL_TOKENS = ("<|bos|>", "<|eos|>", "<|pad|>")

_STEP_WORDS = ("Make", " from", " +", " -", " *", " /", " =", " (left:", " sure", " impossible")
JSON_PIECES = (
    '{"a":"',
    '","op":"',
    '","b":"',
    '","result":"',
    '","left":["',
    '","',
    '"],"value":"',
    '"}',
)
_JSON_WORDS = ("JSON", "sure", "impossible")

_BYTE_BASE = len(SPECIAL_TOKENS)
WORDS: tuple[str, ...] = (
    *_STEP_WORDS,
    *(f"/{denominator}" for denominator in range(2, MAX_DENOMINATOR + 1)),
    *(f" {number}" for number in range(MAX_NUMERATOR + 1)),
    *JSON_PIECES,
    *_JSON_WORDS,
)
_WORD_IDS = {word: _BYTE_BASE + 256 + index for index, word in enumerate(WORDS)}


def token_id(text: str) -> int:
    """The id of a word, or of a single ASCII character; KeyError if no one token spells it."""
    if len(text) == 1:
        return _BYTE_BASE + ord(text)
    return _WORD_IDS[text]


MAKE = token_id("Make")
JSON = token_id("JSON")
FROM = token_id(" from")
EQUALS = token_id(" =")
LEFT_OPEN = token_id(" (left:")
LEFT_CLOSE = token_id(")")
SURE = token_id(" sure")
IMPOSSIBLE = token_id(" impossible")
NEWLINE = token_id("\n")
NUMBER_BASE = token_id(" 0")
DENOMINATOR_BASE = token_id("/2") - 2
"""The token of `/d` is DENOMINATOR_BASE + d, and the one of ` n` is NUMBER_BASE + n."""
