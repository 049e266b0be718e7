"""Use the models whose kernels wheels carry, and print which kernels that took: `python prepared_models.py [--write]`.

`--write` adds them to the list of kernels to prepare.
"""

import json
import sys

import numpy as np

from helix_core import create
from helix_core.events import subscribe
from helix_plugin_cpu.kernels._jit import Kernel
from helix_plugin_cpu.prepared.build import KERNELS, listed
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss

MIXERS = {
    "mamba": {"d_state": 4},
    "mamba2": {"d_state": 8, "head_dim": 8},
    "hyena": {},
    "rwkv7": {"head_dim": 8},
    "gated_deltanet": {"n_heads": 2},
}
DTYPES = ("float32", "bfloat16")


def use(mixer, dtype):
    """Train for two steps, read a prompt, score and continue it."""
    backend = create("backend", "cpu")
    train, infer = (backend.bind(dtype=dtype, mode=mode) for mode in ("train", "infer"))
    model = LanguageModel(ModelConfig(vocab_size=32, d_model=16, n_layers=2, mixer={"name": mixer, **MIXERS[mixer]}))
    params = {name: backend.asarray(value) for name, value in model.init(0).items()}
    optimizer = create("optimizer", "adamw")
    state = optimizer.init(infer, params)
    for step, length in ((1, 70), (2, 9)):
        tokens = backend.asarray(np.arange(2 * length).reshape(2, length) % 31)
        reset = backend.asarray(np.arange(2 * length).reshape(2, length) % 40 == 0)
        value_and_grad = backend.value_and_grad(lambda p, x, r: loss(model, train, p, x, x, reset=r))
        _, grads = value_and_grad(params, tokens, reset)
        with backend.inference():
            params, state = optimizer.update(infer, params, grads, state, lr=1e-3, step=step)
    with backend.inference():
        for length in (17, 1):
            tokens = backend.asarray(np.arange(length)[None])
            model.apply(infer, params, tokens, state=model.init_state(infer, 1), last=True)
            loss(model, infer, params, tokens, tokens)
    for batch, weights in ((1, "float32"), (3, "bfloat16" if dtype == "float32" else "float32")):
        decoder = backend.decoder(model, infer, params, batch=batch, weights=weights)
        for _ in range(3):
            decoder.step(np.zeros(batch, np.int64))


def used():
    """The kernels of this process, as the list names them."""
    modules = [vars(module) for name, module in sys.modules.items() if name.startswith("helix_plugin_cpu.kernels.")]
    kernels = [value for module in modules for value in module.values() if isinstance(value, Kernel)]
    return sorted({name for kernel in kernels for name in kernel.used()})


def main():
    compiled, unused = [], []
    with subscribe(lambda e: {"compiled": compiled, "prepared_unused": unused}.get(e.name, []).append(dict(e.data))):
        for mixer in MIXERS:
            for dtype in DTYPES:
                use(mixer, dtype)
    if "--write" in sys.argv:
        KERNELS.write_text("".join(f"{name}\n" for name in sorted({*used(), *(listed() if KERNELS.exists() else ())})))
    print(json.dumps({"used": used(), "compiled": compiled, "unused": unused}))


if __name__ == "__main__":
    main()
