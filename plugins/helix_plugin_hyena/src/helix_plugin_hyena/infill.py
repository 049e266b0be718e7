"""Filling in: masked bytes, the surest first, by a model that sees what is before and behind them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.errors import GenerationError, UsageError
from helix_plugin_hyena.masked_spans import MASK

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend
    from helix_core.ops import OpTable
    from helix_plugin_lm.models import LanguageModel

BLANK = re.compile(rb"<\|(\d{1,9})\|>")
LONGEST = 65_536


def parse(text: bytes) -> np.ndarray:
    """Bytes with blanks `<|n|>` -> tokens (L,), in which a blank is n times the mask.

    Raises UsageError without a blank, for one of no bytes, and if blanks have more than 65,536 bytes together.
    """
    tokens: list[np.ndarray] = []
    at = blanks = 0
    for found in BLANK.finditer(text):
        count = int(found[1])
        if count == 0:
            raise UsageError(f"the blank {found[0].decode()} at byte {found.start()} has no bytes to fill in")
        blanks += count
        if blanks > LONGEST:
            raise UsageError(f"the blanks have more than {LONGEST:,} bytes together")
        tokens += [_bytes(text[at : found.start()]), np.full(count, MASK, np.int64)]
        at = found.end()
    if not blanks:
        raise UsageError("the text has no blank to fill in", hint="write <|8|> where 8 bytes are missing")
    return np.concatenate([*tokens, _bytes(text[at:])])


def fill(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    tokens: np.ndarray,
    *,
    passes: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """tokens (L,) with masks -> bytes (L,) without; F should be bound with mode "infer".

    In each of `passes` the model reads the text and its surest bytes are filled in, as many as leave as many for every
    later pass. A byte is the likeliest, or drawn at a temperature above 0; it is as sure as its probability.
    Raises GenerationError if the model's answers are not finite.
    Source: Ghazvininejad et al., Mask-Predict, 2019.
    """
    tokens = tokens.copy()
    rng = np.random.default_rng(seed)
    for left in range(passes, 0, -1):
        masked = np.flatnonzero(tokens == MASK)
        if not len(masked):
            break
        with backend.inference():
            logits, _ = model.apply(F, params, backend.asarray(tokens[None]))
            found = backend.to_numpy(logits)[0, masked, :MASK].astype(np.float64)
        if not np.isfinite(found).all():
            raise GenerationError("the model's answers are not finite numbers", hint="its parameters may be damaged")
        nats = found - np.logaddexp.reduce(found, axis=1, keepdims=True)
        # The largest of scores with Gumbel noise is a draw from their softmax.
        noise = rng.gumbel(size=nats.shape) * temperature if temperature > 0 else 0.0
        said = np.argmax(nats + noise, axis=1)
        sure = nats[np.arange(len(said)), said]
        now = np.argsort(-sure, kind="stable")[: math.ceil(len(masked) / left)]
        tokens[masked[now]] = said[now]
    return tokens


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8).astype(np.int64)
