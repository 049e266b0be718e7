"""Texts as documents, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helix_core.errors import DataError, UsageError


def as_bytes(text: str | bytes) -> bytes:
    """A text as the bytes that a model reads. Raises UsageError for something else."""
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, bytes):
        return text
    raise UsageError(f"a text is str or bytes, not {type(text).__name__}")


def documents_of(data: str | Path | Iterable[str | bytes]) -> Sequence[Any]:
    """The documents of a file, folder or glob, or of texts. Raises DataError if there is nothing in them."""
    from helix_plugin_training.data import Document, read_documents

    if isinstance(data, str | Path):
        return read_documents(str(data))
    texts = [as_bytes(text) for text in data]
    found = [Document(f"text {n}", np.frombuffer(text, np.uint8)) for n, text in enumerate(texts) if text]
    if not found:
        raise DataError("there is no text to evaluate on")
    return found
