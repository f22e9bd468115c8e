"""Builds `tokenizer.json`: a byte-level BPE without merges, in the way of Llama 3's.

`ignore_merges` makes a piece of the pre-tokenizer one token whenever the vocabulary has it, and
spells it in bytes otherwise, so that no merge table is needed.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from dendrite_jax.tasks.game24.game import vocabulary


def build_tokenizer() -> Tokenizer:
    """The tokenizer of the embedded model, with the ids of `vocabulary`."""
    byte_text = _byte_characters()
    tokens = list(vocabulary.SPECIAL_TOKENS) + byte_text
    tokens += ["".join(byte_text[byte] for byte in word.encode()) for word in vocabulary.WORDS]
    tokens += [f"<|reserved_{i}|>" for i in range(len(tokens), vocabulary.VOCABULARY_SIZE)]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    json_pieces = "|".join(
        re.escape(piece) for piece in sorted(vocabulary.JSON_PIECES, key=len, reverse=True)
    )
    pieces = rf"\n| \(left:|{json_pieces}| ?\d+|/\d+| [-+*/=]| ?[A-Za-z]+|[^\s\dA-Za-z]|\s"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token in tokens
            if token.startswith("<|")
        ]
    )
    return tokenizer


def save_tokenizer(folder: Path) -> None:
    """Writes `tokenizer.json` into a folder."""
    build_tokenizer().save(str(folder / "tokenizer.json"))


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
