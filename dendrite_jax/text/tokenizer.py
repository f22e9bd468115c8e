"""Text to tokens and back, on Hugging Face `tokenizers`."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from dendrite_jax.checkpoints import hf_files
from dendrite_jax.text.token_bytes import FirstSpace, byte_rule, puts_space_first


class TokenizerError(ValueError):
    """A tokenizer file that cannot be used, or a token that the vocabulary does not have."""


class Tokenizer:
    """A `tokenizer.json` with its special tokens and the bytes of every token.

    Attributes:
      vocab_size: one more than the largest id.
      token_bytes: the bytes that each id contributes to a text, None for special and unused ids.
        For any text that the vocabulary can spell, the bytes of `encode(text)` joined are the
        UTF-8 of the text, with one space before it where `prefix_space` says so (and normalised,
        where the tokenizer normalises).
      special_texts: the id of each special token by its own text (`<|end|>`), which no text of
        `decode` has.
      prefix_space: encoding puts a space before the text (SentencePiece). A `Prepend` normalizer
        does so always; a Metaspace or byte-level pre-tokenizer only where the text begins with
        none, so that "x" and " x" have the same tokens. All but Metaspace's scheme "first" do it
        after each added token too.
      first_space: what `decode` does with the first space of a whole text.
      bos_id: the token that begins a text, where the folder names one.
      eos_ids: the tokens that end a text, where the folder names any.
    """

    vocab_size: int
    token_bytes: list[bytes | None]
    special_texts: dict[str, int]
    prefix_space: bool
    first_space: FirstSpace
    bos_id: int | None
    eos_ids: tuple[int, ...]

    def __init__(self, definition: str, settings: Sequence[Mapping[str, Any]] = ()) -> None:
        """Builds a tokenizer.

        Args:
          definition: the content of a `tokenizer.json`.
          settings: the contents of `generation_config.json`, `config.json` and
            `tokenizer_config.json`, or as many as there are; the first that names a bos or eos
            token decides.

        Raises:
          TokenizerError: the definition is damaged, or of a kind whose bytes are not known.
        """
        try:
            fields = json.loads(definition)
            self._tokenizer = tokenizers.Tokenizer.from_str(definition)
            rule = byte_rule(fields.get("decoder"))
            self.prefix_space = puts_space_first(
                fields.get("normalizer"), fields.get("pre_tokenizer")
            )
        except Exception as exc:  # the tokenizers library raises plain Exception
            raise TokenizerError(f"not a usable tokenizer.json: {exc}") from exc
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

        pieces = self._tokenizer.get_vocab(with_added_tokens=False)
        added = self._tokenizer.get_added_tokens_decoder()
        self.vocab_size = 1 + max([*pieces.values(), *added], default=-1)
        self.first_space = rule.drop
        self.token_bytes = [None] * self.vocab_size
        for piece, index in pieces.items():
            self.token_bytes[index] = rule.to_bytes(piece)
        self.special_texts = {t.content: index for index, t in added.items() if t.special}
        for index, token in added.items():
            # As the decoder gets it: the content, normalised where the token says so.
            written = self._tokenizer.id_to_token(index) or token.content
            self.token_bytes[index] = None if token.special else rule.added_to_bytes(written)
        self.bos_id = next(iter(self._special_ids("bos", settings)), None)
        self.eos_ids = self._special_ids("eos", settings)

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Reads a `tokenizer.json`, and the special tokens from the settings files beside it.

        Raises:
          TokenizerError: a file is missing, damaged or not supported; the message names it.
        """
        path = Path(path)
        path = path / hf_files.TOKENIZER if path.is_dir() else path
        try:
            definition = path.read_text(encoding="utf-8")
        except OSError as exc:
            raise TokenizerError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
        except UnicodeDecodeError as exc:
            raise TokenizerError(f"{path}: not UTF-8 ({exc})") from exc
        names = (hf_files.GENERATION_CONFIG, hf_files.CONFIG, hf_files.TOKENIZER_CONFIG)
        settings = [
            hf_files.read_json_if_present(path.with_name(name), TokenizerError) for name in names
        ]
        try:
            return cls(definition, settings)
        except TokenizerError as exc:
            raise TokenizerError(f"{path}: {exc}") from exc

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """The ids of `text`; with `add_special_tokens`, framed as the tokenizer's template says."""
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Iterable[int], continuation: bool = False) -> str:
        """The text of `ids`, as Hugging Face's decoder makes it without special tokens.

        Special and unused ids give no text, and neither do those from `vocab_size` on, which a
        model with a padded vocabulary can produce. Bytes that are not UTF-8 give U+FFFD. (How many
        is this decoder's own; `ByteFallback` gives one for each byte of a run.)

        Args:
          ids: a whole text from its first token, or with `continuation` what follows a text.
          continuation: keep the space that begins the first token.

        Raises:
          TokenizerError: an id is negative.
        """
        stream = TextStream(self, continuation)
        return stream.feed(ids) + stream.finish()

    def token_id(self, token: str) -> int:
        """The id of a token as the vocabulary writes it, such as `<s>`; TokenizerError if none."""
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise TokenizerError(f"token {token!r} is not in the vocabulary")
        return index

    def bytes_of(self, index: int) -> bytes:
        """The bytes of an id, empty for a special one and for one that no token has.

        Raises:
          TokenizerError: the id is negative.
        """
        if index < 0:
            raise TokenizerError(f"token id is {index}; it must be at least 0")
        return (self.token_bytes[index] or b"") if index < self.vocab_size else b""

    def _special_ids(self, kind: str, settings: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        ids = hf_files.token_ids(f"{kind}_token_id", *settings, error=TokenizerError)
        if ids:
            return ids
        for values in settings:
            token = values.get(f"{kind}_token")
            content = token.get("content") if isinstance(token, Mapping) else token
            if content is not None:
                return (self.token_id(content),)
        return ()


class TextStream:
    """Turns tokens into text as they come: never half a character, never a changed past.

    Feed a whole text from its first token, or with `continuation` the tokens that follow a prompt.
    """

    def __init__(self, tokenizer: Tokenizer, continuation: bool = False) -> None:
        """Starts a stream; `continuation` keeps the space that begins the first token."""
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._first_space = FirstSpace.KEPT if continuation else tokenizer.first_space
        self._start: bytes | None = b""  # of the text, until its first space is decided

    def feed(self, ids: Iterable[int]) -> str:
        """The text that is certain after these ids; bytes of an unfinished character are held back.

        Raises:
          TokenizerError: an id is negative; the stream is as before the call.
        """
        data = b"".join([self._tokenizer.bytes_of(index) for index in ids])
        return self._decoder.decode(self._without_first_space(data))

    def finish(self) -> str:
        """What is left at the end: U+FFFD when the last character is unfinished, else nothing."""
        return self._decoder.decode(self._without_first_space(b"", ended=True), final=True)

    def _without_first_space(self, data: bytes, ended: bool = False) -> bytes:
        if self._start is None:
            return data
        start = self._start + data
        kept = self._first_space.apply(start, ended)
        self._start = start if kept is None else None
        return kept or b""
