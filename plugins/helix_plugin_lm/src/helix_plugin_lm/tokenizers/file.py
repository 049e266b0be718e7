"""Tokenizers in the format of Hugging Face's `tokenizers` library: a `tokenizer.json`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from helix_core.errors import ComponentUnavailable, TokenizerError
from helix_plugin_lm.tokenizers.base import StreamState, Tokenizer, TokenStream

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILES = ("generation_config.json", "tokenizer_config.json", "config.json")
"""Files beside it in which models of Hugging Face's hub say which tokens begin and end a text."""
STARTS = ("<|endoftext|>", "<s>", "<bos>", "<|begin_of_text|>", "[BOS]")
ENDS = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[EOS]")
"""Special tokens that begin and end a text where no file says so."""

WINDOW, KEPT = 32, 8
UNKNOWN = "\ufffd"


class FileStream(TokenStream):
    """Decodes a window of the last tokens, so that each takes the same time wherever it stands in a text."""

    def __init__(self, library: Any, ids: list[int], given: int) -> None:
        self._library, self._ids, self._given = library, ids, given
        # Tokens since the text last ended in a whole character.
        ends = (n for n in range(len(ids)) if not self._text(len(ids) - n).endswith(UNKNOWN))
        self._pending = next(ends, len(ids))

    def feed(self, token: int) -> bytes:
        self._ids.append(token)
        text = self._text(len(self._ids))
        whole = not text.endswith(UNKNOWN)
        self._pending = 0 if whole else self._pending + 1
        # A character may lack bytes for three tokens; what is unknown after more of them is no character, and only what
        # the last three gave may still change.
        certain = len(text) if whole else 0 if self._pending <= 3 else len(text) - 3
        piece = text[self._given : max(certain, self._given)]
        self._given = max(self._given, certain)
        if len(self._ids) > (WINDOW if whole else 2 * WINDOW):
            self._forget(text)
        return piece.encode()

    def _forget(self, text: str) -> None:
        """Drop tokens from the front, where those that stay give the end of the text."""
        # Not anywhere: some decoders make characters of single bytes only if the whole run of them is UTF-8.
        good = (n for n in range(KEPT, WINDOW) if text.endswith(self._library.decode(self._ids[-n:])))
        kept = next(good, KEPT if len(self._ids) > 2 * WINDOW else len(self._ids))
        self._ids = self._ids[-kept:]
        self._given = max(0, len(self._text(kept)) - (len(text) - self._given))

    def _text(self, count: int) -> str:
        text: str = self._library.decode(self._ids[:count])
        return text

    def state(self) -> StreamState:
        return list(self._ids), self._given


class FileTokenizer(Tokenizer):
    """A `tokenizer.json`, with the files beside it that say which tokens begin and end a text.

    `separated`: the model was trained on documents behind `start`, so prompts begin with it too. Otherwise a prompt
    begins with what the file's own post-processor puts there.

    Raises ComponentUnavailable if the library is not installed, TokenizerError if the file cannot be used.
    """

    def __init__(self, path: str | Path, *, separated: bool = False) -> None:
        self.path, self.separated = Path(path), separated
        library = _library()
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise TokenizerError(f"cannot read tokenizer {path}: {error.strerror or error}") from error
        try:
            self._tokenizer = library.Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises Exception itself
            raise TokenizerError(f"{path} is not a tokenizer of the library `tokenizers`: {error}") from error
        # A file may say to cut or pad texts, which would lose or invent some.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise TokenizerError(f"{path} has no tokens")
        self.vocab_size = max(vocabulary.values()) + 1
        self._data = data
        self.fingerprint = hashlib.blake2b(data, digest_size=16).hexdigest()
        said = _said(self.path.parent, vocabulary)
        special = {t.content: i for i, t in self._tokenizer.get_added_tokens_decoder().items() if t.special}
        ends = said["eos"] or [special[name] for name in ENDS if name in special][:1]
        starts = said["bos"] or [special[name] for name in STARTS if name in special]
        self.ends = frozenset(ends)
        self.start = next(iter([*starts, *ends]), None)

    def copy_to(self, folder: Path) -> None:
        """Write the tokenizer, and the tokens that begin and end a text, to a folder. Raises TokenizerError."""
        names = {i: text for text, i in self._tokenizer.get_vocab(with_added_tokens=True).items()}
        config: dict[str, Any] = {"eos_token_id": sorted(self.ends)}
        if self.start is not None:
            config |= {"bos_token_id": self.start, "bos_token": names[self.start]}
        try:
            (folder / TOKENIZER_FILE).write_bytes(self._data)
            (folder / CONFIG_FILES[0]).write_text(json.dumps(config, indent=1) + "\n")
        except OSError as error:
            raise TokenizerError(f"cannot copy tokenizer {self.path}: {error.strerror or error}") from error

    def encode(self, text: bytes) -> np.ndarray:
        return np.array(self._encode(text, special=False), dtype=np.int64)

    def prompt(self, text: bytes) -> np.ndarray:
        ids = self._encode(text, special=not self.separated)
        if self.separated or not ids:
            if self.start is None:
                raise TokenizerError(
                    f"{self.path} has no token that begins a text",
                    hint="give a prompt, or add a special token such as <|endoftext|> to the tokenizer",
                )
            ids = [self.start, *ids]
        return np.array(ids, dtype=np.int64)

    def stream(self, state: StreamState = ((), 0)) -> FileStream:
        ids, given = list(state[0]), state[1]
        if not all(0 <= i < self.vocab_size for i in ids) or given < 0:
            raise ValueError("no tokens of this tokenizer")
        return FileStream(self._tokenizer, ids, given)

    def _encode(self, text: bytes, *, special: bool) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text.decode(), add_special_tokens=special).ids
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"the text is not UTF-8, which this model's tokenizer needs: {error.reason} at byte {error.start}"
            ) from error
        return ids


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ComponentUnavailable(
            "this model's text goes through a tokenizer.json, and the library `tokenizers` is not installed",
            hint="pip install 'helix-plugin-lm[tokenizers]'",
        ) from error
    return tokenizers


def _said(folder: Path, vocabulary: dict[str, int]) -> dict[str, list[int]]:
    """The tokens that files beside the tokenizer name as the first and the last of a text."""
    found: dict[str, list[int]] = {"bos": [], "eos": []}
    for name in CONFIG_FILES:
        try:
            config = json.loads((folder / name).read_bytes())
        except OSError:
            continue
        except ValueError as error:
            raise TokenizerError(f"{folder / name} is not JSON: {error}") from error
        if not isinstance(config, dict):
            continue
        for kind, ids in found.items():
            ids.extend(i for i in _tokens(config, kind, vocabulary) if i not in ids)
    return found


def _tokens(config: dict[str, Any], kind: str, vocabulary: dict[str, int]) -> list[int]:
    by_number = config.get(f"{kind}_token_id")
    numbers = by_number if isinstance(by_number, list) else [by_number]
    name = config.get(f"{kind}_token")
    if isinstance(name, dict):
        name = name.get("content")
    named = [vocabulary[name]] if isinstance(name, str) and name in vocabulary else []
    known = set(vocabulary.values())
    return [n for n in numbers if type(n) is int and n in known] + named
