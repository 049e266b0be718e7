"""Streaming generation: prefill the prompt once, then one step per byte at constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.data.corpus import SEPARATOR
from helix_core.errors import UsageError
from helix_core.generation.sampling import Sampling

if TYPE_CHECKING:
    from helix_core.backends.base import Backend
    from helix_core.models.language_model import LanguageModel
    from helix_core.ops.table import OpTable

PREFILL_CHUNK = 1024


def generate(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    prompt: bytes,
    *,
    max_bytes: int,
    sampling: Sampling | None = None,
    seed: int = 0,
    weights: str = "float32",
) -> Iterator[int]:
    """Yield bytes that continue `prompt` at the start of a document, one at a time.

    Equal seeds give equal bytes on one backend. F should be bound with mode "infer". `weights` is the format that the
    backend's decoder keeps weights in ("float32", "bfloat16", "int8"); the prompt is read with the parameters as they
    are. Raises ComponentUnavailable for a format that the backend does not have, UsageError for more bytes than fit
    into the model's context.
    """
    sampling = sampling or Sampling()
    rng = np.random.default_rng(seed)
    decoder = backend.decoder(model, F, params, weights=weights)
    context = np.frombuffer(bytes([SEPARATOR]) + prompt, dtype=np.uint8).astype(np.int64)
    if model.context is not None and len(context) + max_bytes - 1 > model.context:
        raise UsageError(
            f"a prompt of {len(prompt)} bytes and {max_bytes} more do not fit into the model's context of "
            f"{model.context}",
            hint="shorten the prompt or generate fewer; attention with a `window` has no limit",
        )
    state = decoder.state()
    logits = np.empty(0)
    for start in range(0, len(context), PREFILL_CHUNK):
        logits, state = _advance(model, backend, F, params, context[start : start + PREFILL_CHUNK], state)
    decoder.load(state)
    for produced in range(max_bytes):
        token = sampling.pick(logits, rng)
        yield token
        if produced + 1 < max_bytes:
            logits = decoder.step(np.array([token]))[0]


def _advance(
    model: LanguageModel,
    backend: Backend,
    F: OpTable,
    params: Mapping[str, Any],
    tokens: np.ndarray,
    state: Any,
) -> tuple[np.ndarray, Any]:
    """Feed tokens (L,) and return the last step's logits (V,) and the state."""
    with backend.inference():
        logits, state = model.apply(F, params, backend.asarray(tokens[None]), state=state)
        return backend.to_numpy(logits[0, -1]), state
