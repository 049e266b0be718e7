"""The model on the cpu backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_core import create
from helix_core.models import loss
from peers import mamba


def work(shape: list[int], what: str, dtype: str = "float32") -> Callable[[], Any]:
    """what: train (loss and all gradients) or prefill (logits of the last token, and the state)."""
    backend = create("backend", "cpu")
    model = mamba.model()
    params = {name: backend.asarray(a) for name, a in mamba.params().items()}
    tokens, targets = (backend.asarray(a) for a in mamba.tokens(shape))
    if what == "prefill":
        F = backend.bind(dtype=dtype, mode="infer")

        def prefill() -> Any:
            with backend.inference():
                state = model.init_state(F, shape[0])
                logits, _ = model.apply(F, params, tokens, state=state, last=True)
            return logits[:, -1]

        return prefill
    F = backend.bind(dtype=dtype, mode="train")
    step = backend.value_and_grad(lambda p: loss(model, F, p, tokens, targets))

    def train() -> Any:
        value, grads = step(params)
        return [value, *(grads[name] for name in mamba.WATCHED)]

    return train
