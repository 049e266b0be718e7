"""A corpus of byte documents, split into training and validation, read without copying it into memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from helix_core.errors import DataError, TokenizerError
from helix_plugin_lm.tokenizers import SEPARATOR, Tokenizer
from helix_plugin_training.data.files import find_files
from helix_plugin_training.data.reading import FileBytes


@dataclass(frozen=True)
class Document:
    """The bytes of a file, or of a part of it; or their tokens."""

    name: str
    data: np.ndarray | FileBytes

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class FileDocument(Document):
    """A document that is read from its file."""

    data: FileBytes


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
        """Bytes that are held out."""
        return sum(map(len, self.validation))


def read_documents(source: str | Iterable[str]) -> list[FileDocument]:
    """Every non-empty file of a source. Raises DataError if there is none or one cannot be read."""
    files = find_files(source)
    try:
        root = os.path.commonpath([path.parent for path in files])
    except ValueError:  # on several drives
        root = ""
    documents: list[FileDocument] = []
    for path in files:
        size = path.stat().st_size
        name = path.relative_to(root).as_posix() if root else path.as_posix()
        documents += [FileDocument(name, FileBytes(path, 0, size))] if size else []
    if not documents:
        raise DataError(f"all files of data source {source!r} are empty")
    return documents


def load_corpus(source: str | Iterable[str], validation: float, tokenizer: Tokenizer | None = None) -> Corpus:
    """Split a source by file: a file is held out if the hash of its name falls into the validation share.

    Copies of a file are on the side of the first of them. Files that are all the same are split by position instead,
    as a single one is: its end is held out. With a tokenizer, training documents are its tokens, in memory, and without
    one bytes. Reads every byte once. Raises DataError if nothing can be read or encoded.
    """
    documents = read_documents(source)
    digest = hashlib.blake2b(digest_size=16)
    copies: dict[bytes, list[str]] = {}
    for document in documents:
        content = document.data.digest()
        digest.update(os.fsencode(document.name) + b"\0" + content)
        copies.setdefault(content, []).append(document.name)
    train: Sequence[Document]
    held_out: Sequence[Document]
    if len(copies) == 1:
        train, held_out = _split_by_position(documents[0], validation)
    else:
        names = _held_out(list(copies.values()), validation)
        train = [d for d in documents if d.name not in names]
        held_out = [d for d in documents if d.name in names]
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


def _split_by_position(document: FileDocument, share: float) -> tuple[list[Document], list[Document]]:
    cut = len(document) - max(1, round(share * len(document)))
    # Not inside a character of UTF-8, whose later bytes are at most three.
    cut -= next((n for n in range(min(4, cut)) if document.data[cut - n] & 0xC0 != 0x80), 0)
    if cut < 1:
        raise DataError(f"{document.name} has {len(document)} bytes: too few to hold any out")
    begin, end = document.data.part(0, cut), document.data.part(cut, len(document))
    return [Document(document.name, begin)], [Document(f"{document.name}[{cut}:]", end)]


def _held_out(copies: Sequence[list[str]], share: float) -> set[str]:
    """Of groups of names, at least two, all names of those held out: at least one group, and not all."""

    def rank(names: list[str]) -> int:
        return int.from_bytes(hashlib.blake2b(os.fsencode(names[0]), digest_size=8).digest(), "big")

    ranked = sorted(copies, key=rank)
    count = sum(rank(names) < share * 2**64 for names in ranked)
    count = min(max(1, count), len(ranked) - 1)
    return {name for names in ranked[:count] for name in names}
