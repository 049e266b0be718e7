"""Tokenizers in the format of Hugging Face's `tokenizers` library: a `tokenizer.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from helix_core.errors import TokenizerError
from helix_core.untrusted import read_bytes, read_json
from helix_plugin_lm.tokenizers.base import StreamState, Tokenizer
from helix_plugin_lm.tokenizers.decoding import Decoding
from helix_plugin_lm.tokenizers.library import guarded, library
from helix_plugin_lm.tokenizers.stream import FileStream

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILES = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
"""Files beside it in which models of Hugging Face's hub say which tokens begin and end a text."""
ORIGIN = "huggingface"
"""The folder of an imported run with such files."""
STARTS = ("<|endoftext|>", "<s>", "<bos>", "<|begin_of_text|>", "[BOS]")
ENDS = ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[EOS]")
"""Special tokens that begin and end a text where no file says so."""


class FileTokenizer(Tokenizer):
    """A `tokenizer.json`, with the files beside it that say which tokens begin and end a text.

    `separated`: the model was trained on documents behind `start`, so prompts begin with it too. Otherwise a prompt
    begins with what the file's own post-processor puts there.

    Raises ComponentUnavailable if the library is not installed, TokenizerError if the file cannot be used.

    >>> import json, tempfile
    >>> from pathlib import Path
    >>> from helix_plugin_lm.tokenizers import FileTokenizer
    >>> words = {"type": "WordLevel", "vocab": {"to": 0, "be": 1, "?": 2}, "unk_token": "?"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "tokenizer.json")
    ...     _ = path.write_text(json.dumps({"model": words, "pre_tokenizer": {"type": "Whitespace"}}))
    ...     tokenizer = FileTokenizer(path)
    >>> tokenizer.vocab_size, tokenizer.encode(b"to be or").tolist()
    (3, [0, 1, 2])
    """

    def __init__(self, path: str | Path, *, separated: bool = False) -> None:
        self.path, self.separated = Path(path), separated
        tokenizers = library()
        data = read_bytes(self.path, TokenizerError)
        _check_merges(data, path)
        with guarded(f"{path} is not a tokenizer of the library `tokenizers`"):
            self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
            # A file may say to cut or pad texts, which would lose or invent some.
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
            self._decoding = Decoding(self._tokenizer, str(path))
        if not vocabulary:
            raise TokenizerError(f"{path} has no tokens")
        self.vocab_size = max(vocabulary.values()) + 1
        self._data = data
        self.fingerprint = hashlib.blake2b(data, digest_size=16).hexdigest()
        said = _said((self.path.parent, self.path.parent / ORIGIN), vocabulary)
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
        return FileStream(self._decoding, list(filter(self._decoding.shown, ids)), given)

    def _encode(self, text: bytes, *, special: bool) -> list[int]:
        try:
            characters = text.decode()
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"the text is not UTF-8, which this model's tokenizer needs: {error.reason} at byte {error.start}"
            ) from error
        with guarded(f"the tokenizer {self.path} cannot encode the text"):
            ids: list[int] = self._tokenizer.encode(characters, add_special_tokens=special).ids
        return ids


def _check_merges(data: bytes, path: str | Path) -> None:
    """Raise TokenizerError for merges that end the process in the library: those of parts without their prefix."""
    try:
        model = json.loads(data)["model"]
        prefix, merges = model["continuing_subword_prefix"], model["merges"]
        seconds = [str((merge.split(" ") if isinstance(merge, str) else merge)[1]) for merge in merges]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return  # the library says what is wrong with it
    if not isinstance(prefix, str) or all(part.startswith(prefix) for part in seconds):
        return
    raise TokenizerError(f"{path} merges parts that lack its continuing_subword_prefix {prefix[:50]!r}")


def _said(folders: Iterable[Path], vocabulary: dict[str, int]) -> dict[str, list[int]]:
    """The tokens that files in these folders name as the first and the last of a text."""
    found: dict[str, list[int]] = {"bos": [], "eos": []}
    for path in (folder / name for folder in folders for name in CONFIG_FILES):
        if not path.exists():
            continue
        config = read_json(path, TokenizerError, finite=False)
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
