"""A corpus of byte documents, split into training and validation, read without copying it into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helix_core.errors import DataError, TokenizerError
from helix_plugin_lm.tokenizers import SEPARATOR, Tokenizer
from helix_plugin_training.data.files import find_files


@dataclass(frozen=True)
class Document:
    """The bytes of a file, or of a part of it."""

    name: str
    data: np.ndarray

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class Corpus:
    """Training and validation documents and a fingerprint of the files they came from.

    unit       what training documents consist of, "byte" or "token"; validation documents are bytes
    separator  the token in front of every training document
    """

    train: tuple[Document, ...]
    validation: tuple[Document, ...]
    fingerprint: str
    unit: str = "byte"
    separator: int = SEPARATOR

    @property
    def validation_bytes(self) -> int:
        return sum(map(len, self.validation))


def read_documents(source: str | Iterable[str]) -> list[Document]:
    """Every non-empty file of a source. Raises DataError if there is none or one cannot be read."""
    files = find_files(source)
    root = Path(os.path.commonpath([path.parent for path in files]))
    documents = [Document(path.relative_to(root).as_posix(), _read(path)) for path in files]
    documents = [document for document in documents if len(document)]
    if not documents:
        raise DataError(f"all files of data source {source!r} are empty")
    return documents


def load_corpus(source: str | Iterable[str], validation: float, tokenizer: Tokenizer | None = None) -> Corpus:
    """Split a source by file: a file is held out if the hash of its name falls into the validation share.

    A single file is split by position instead, its end held out. With a tokenizer, training documents are its tokens,
    in memory, and without one bytes. Raises DataError if nothing can be read or encoded.
    """
    documents = read_documents(source)
    digest = hashlib.blake2b(digest_size=16)
    for document in documents:
        digest.update(f"{document.name}\0{len(document)}\0".encode())
        digest.update(np.ascontiguousarray(document.data[:4096]).tobytes())
    if len(documents) == 1:
        train, held_out = _split_by_position(documents[0], validation)
    else:
        train, held_out = _split_by_name(documents, validation)
    if tokenizer is None:
        return Corpus(tuple(train), tuple(held_out), digest.hexdigest())
    digest.update(tokenizer.fingerprint.encode())
    encoded = tuple(Document(d.name, encode(tokenizer, d).astype(np.int32)) for d in train)
    return Corpus(encoded, tuple(held_out), digest.hexdigest(), "token", start_token(tokenizer))


def encode(tokenizer: Tokenizer, document: Document) -> np.ndarray:
    """The tokens (N,) of a document of bytes. Raises DataError, with its name, if it cannot be encoded."""
    try:
        return tokenizer.encode(document.data.tobytes())
    except TokenizerError as error:
        raise DataError(f"{document.name}: {error.message}", hint=error.hint) from error


def start_token(tokenizer: Tokenizer) -> int:
    """The token in front of every document. Raises DataError if the tokenizer has none."""
    if tokenizer.start is None:
        raise DataError(
            "the tokenizer has no token to stand in front of documents",
            hint="add a special token such as <|endoftext|> to it",
        )
    return tokenizer.start


def _split_by_position(document: Document, share: float) -> tuple[list[Document], list[Document]]:
    cut = len(document) - max(1, round(share * len(document)))
    # Not inside a character of UTF-8, whose later bytes are at most three.
    cut -= next((n for n in range(min(4, cut)) if document.data[cut - n] & 0xC0 != 0x80), 0)
    if cut < 1:
        raise DataError(f"{document.name} has {len(document)} bytes: too few to hold any out")
    parts = (
        Document(document.name, document.data[:cut]),
        Document(f"{document.name}[{cut}:]", document.data[cut:]),
    )
    return [parts[0]], [parts[1]]


def _split_by_name(documents: Sequence[Document], share: float) -> tuple[list[Document], list[Document]]:
    ranked = sorted(documents, key=_rank)
    held_out = {d.name for d in ranked if _rank(d) < share * 2**64} or {ranked[0].name}
    train = [d for d in documents if d.name not in held_out] or [ranked[-1]]
    kept = {d.name for d in train}
    return train, [d for d in documents if d.name not in kept]


def _rank(document: Document) -> int:
    return int.from_bytes(hashlib.blake2b(document.name.encode(), digest_size=8).digest(), "big")


def _read(path: Path) -> np.ndarray:
    try:
        # Mapped files are read as they are touched, so a corpus may be larger than memory.
        return np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
