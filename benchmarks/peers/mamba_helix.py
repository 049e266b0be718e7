"""The model on a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_core import create
from helix_plugin_lm.models import loss
from peers import mamba


def work(shape: list[int], what: str, dtype: str = "float32", backend: str = "cpu") -> Callable[[], Any]:
    """what: train (loss and all gradients) or prefill (logits of the last token, and the state)."""
    on = create("backend", backend)
    model = mamba.model()
    params = {name: on.asarray(a) for name, a in mamba.params().items()}
    tokens, targets = (on.asarray(a) for a in mamba.tokens(shape))
    if what == "prefill":
        F = on.bind(dtype=dtype, mode="infer")

        def forward(params: Any, tokens: Any) -> Any:
            return model.apply(F, params, tokens, state=model.init_state(F, shape[0]), last=True)[0][:, -1]

        # XLA runs programs; the others run what they are given.
        run = on.compile(forward) if backend == "jax" else forward

        def prefill() -> Any:
            with on.inference():
                return on.to_numpy(run(params, tokens))

        return prefill
    F = on.bind(dtype=dtype, mode="train")
    step = on.value_and_grad(lambda p, x, y: loss(model, F, p, x, y))

    def train() -> Any:
        value, grads = step(params, tokens, targets)
        on.synchronize()
        return [on.to_numpy(a) for a in (value, *(grads[name] for name in mamba.WATCHED))]

    return train
