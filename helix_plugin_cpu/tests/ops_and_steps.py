"""Numbers from every op, each way, and from every layer: trained one step, decoded a few; by name.

As a script, `ops_and_steps.py DEFAULT FILE` computes them in a process whose torch has another default dtype or device
from before the first import of Helix, and writes them to a file.
"""

import sys

import numpy as np
import torch

OPTIONS = {"hyena": {"l_max": 64}}
DEFAULTS = {
    "float64": lambda: torch.set_default_dtype(torch.float64),
    "bfloat16": lambda: torch.set_default_dtype(torch.bfloat16),
    "float16": lambda: torch.set_default_dtype(torch.float16),
    "meta": lambda: torch.set_default_device("meta"),
}


def of_ops(backend, dtypes=("float32", "bfloat16")):
    """Outputs and gradients of all samples of all ops."""
    from helix_core.ops import OPS

    found = {}
    for dtype in dtypes:
        F = backend.bind(dtype=dtype)
        for name, op in OPS.items():
            for i, sample in enumerate(op.samples(np.random.default_rng(0))):
                arrays = {n: backend.asarray(np.asarray(a), dtype) for n, a in sample.arrays.items()}
                for n, a in arrays.items():
                    a.requires_grad_(a.is_floating_point() and n not in op.no_grad)
                result = getattr(F, name)(*(arrays.get(n) for n in op.arrays), **sample.attrs)
                outputs = [result] if isinstance(result, torch.Tensor) else list(result)
                label = f"{name} {dtype} {i}"
                found |= {f"{label} output {k}": backend.to_numpy(a) for k, a in enumerate(outputs)}
                leaves = {n: a for n, a in arrays.items() if a.requires_grad}
                used = [a for a in outputs if a.requires_grad]
                if used:
                    slopes = [torch.cos(a.detach()) for a in used]
                    grads = torch.autograd.grad(used, list(leaves.values()), slopes, materialize_grads=True)
                    found |= {f"{label} d/d {n}": backend.to_numpy(a) for n, a in zip(leaves, grads, strict=True)}
    return found


def of_layers(backend):
    """Gradients of a small model of every layer, and its logits step by step with weights of every format."""
    from helix_core.errors import ComponentUnavailable
    from helix_core.plugin_system import components
    from helix_plugin_lm.models import LanguageModel, ModelConfig, loss

    found = {}
    for layer in sorted({c.descriptor.name for c in components("layer") if not c.full_name.startswith("example/")}):
        part = {"name": layer, **OPTIONS.get(layer, {})}
        model = LanguageModel(ModelConfig(vocab_size=40, d_model=64, n_layers=1, mixer=part))
        params = {n: backend.asarray(a) for n, a in model.init(0).items()}
        tokens = np.random.default_rng(0).integers(40, size=(2, 20))
        F, inputs = backend.bind(mode="train"), backend.asarray(tokens)

        def nats(p, F=F, model=model, inputs=inputs):
            return loss(model, F, p, inputs[:, :-1], inputs[:, 1:])

        value, grads = backend.value_and_grad(nats)(params)
        found |= {f"{layer} loss": backend.to_numpy(value)}
        found |= {f"{layer} d/d {n}": backend.to_numpy(a) for n, a in grads.items()}
        for weights in ("float32", "bfloat16", "int8"):
            try:
                decoder = backend.decoder(model, backend.bind(mode="infer"), params, batch=2, weights=weights)
            except ComponentUnavailable:
                assert weights != "float32"  # a layer that the native step does not have
                continue
            for step in range(3):
                found[f"{layer} {weights} step {step}"] = decoder.step(tokens[:, step])
    return found


def compute():
    """All of them, on the cpu backend."""
    from helix_core import create

    backend = create("backend", "cpu")
    return of_ops(backend) | of_layers(backend)


if __name__ == "__main__":
    torch.set_num_threads(1)
    DEFAULTS[sys.argv[1]]()
    np.savez(sys.argv[2], **compute())
