"""The library `tokenizers`: found when it is needed, and its failures as TokenizerError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from helix_core.errors import ComponentUnavailable, TokenizerError


def library() -> Any:
    """The module. Raises ComponentUnavailable if it is not installed."""
    try:
        import tokenizers
    except ImportError as error:
        raise ComponentUnavailable(
            "this model's text goes through a tokenizer.json, and the library `tokenizers` is not installed",
            hint="pip install 'helix-plugin-lm[tokenizers]'",
        ) from error
    return tokenizers


@contextmanager
def guarded(problem: str) -> Iterator[None]:
    """Raise TokenizerError, which says the problem, for whatever the library raises."""
    try:
        yield
    except BaseException as error:
        # The library raises Exception itself. Where it panics, which damaged files can make it do, it raises a
        # BaseException of a module that cannot be imported.
        if isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime":
            raise TokenizerError(f"{problem}: {error}", hint="was its tokenizer.json damaged?") from error
        raise
