"""Reading a prompt: many tokens at once, of one row, so that nothing is padded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import UsageError
from helix_plugin_lm.tokenizers import Tokenizer, check_vocabulary

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops.table import OpTable
    from helix_plugin_lm.models.language_model import LanguageModel

CHUNK = 1024


def read(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    tokens: np.ndarray,
    state: Any = None,
) -> tuple[np.ndarray, Any]:
    """Tokens (N,), at least one -> the logits (V,) after them and the state, from the initial state or another."""
    logits = np.empty(0)
    with backend.inference():
        if state is None:
            state = model.init_state(F, 1)
        for start in range(0, len(tokens), CHUNK):
            fed = backend.asarray(tokens[None, start : start + CHUNK])
            out, state = model.apply(F, params, fed, state=state, last=True)
            logits = backend.to_numpy(out[0, -1])
    return logits, state


def check_prompt(model: LanguageModel, tokenizer: Tokenizer, length: int, before: int = 0) -> None:
    """Raise UsageError if a state that has read `before` tokens cannot take in a prompt of `length` more.

    A model with a layer that looks ahead takes in none. Raises ConfigError for the tokenizer of another model.
    """
    model.require_causal("generation")
    check_vocabulary(tokenizer, model.vocab_size)
    limit = model.context
    if limit is not None and before + length > limit:
        whole = f" after {before:,} others" if before else ""
        raise UsageError(
            f"the prompt has {length:,} tokens{whole}; this model can take in {limit:,} in all",
            hint="shorten the prompt: nothing of it is dropped silently",
        )
