"""Token sequences that models learn from: inputs, targets and where they are scored."""

from __future__ import annotations

from typing import Any

import numpy as np


def next_token(tokens: np.ndarray) -> dict[str, Any]:
    """The sample of a language model: tokens (L + 1,) -> every token is to be told from those before it."""
    tokens = tokens.astype(np.int64)
    return {"inputs": tokens[:-1].copy(), "targets": tokens[1:].copy(), "mask": np.ones(len(tokens) - 1, bool)}
