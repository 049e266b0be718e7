"""A kernel sees addresses only: what is not as it reads it is refused before, wherever it comes from."""

import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.kinds.decoder import PlainDecoder
from helix_core.kinds.kernel import Kernel
from helix_core.ops import OPS
from helix_plugin_cpu.kernels import table
from helix_plugin_lm.models import LanguageModel, ModelConfig

KERNELS = {name: getattr(table, name) for name in OPS if isinstance(getattr(table, name, None), Kernel)}

READ_AGAIN = set(KERNELS) - {"causal_conv1d", "swiglu", "embedding", "linear", "long_conv"}
"""Those whose backward reads, by address, what the forward kept."""


def inputs(name):
    """The op's sample with most arrays, in float32."""
    op = OPS[name]
    sample = max(op.samples(np.random.default_rng(3)), key=lambda s: (len(s.arrays), -len(s.attrs)))
    arrays = [None if (a := sample.arrays.get(n)) is None else torch.from_numpy(np.asarray(a)) for n in op.arrays]
    return [a.float() if a is not None and a.is_floating_point() else a for a in arrays], dict(sample.attrs)


@pytest.mark.parametrize("name", KERNELS)
def test_other_numbers_are_refused_or_converted(name):
    arrays, attrs = inputs(name)
    expected = KERNELS[name].forward(*arrays, **attrs)
    for i, array in enumerate(arrays):
        if array is None or not array.is_floating_point():
            continue
        try:
            found = KERNELS[name].forward(*arrays[:i], array.double(), *arrays[i + 1 :], **attrs)
        except TypeError:
            continue
        assert all(torch.equal(a.to(b.dtype), b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", KERNELS)
def test_memory_elsewhere_is_refused(name):
    arrays, attrs = inputs(name)
    for i, array in enumerate(arrays):
        if array is not None and name != "embedding":  # whose forward is torch's own
            with pytest.raises((TypeError, ValueError), match="meta"):
                KERNELS[name].forward(*arrays[:i], array.to("meta"), *arrays[i + 1 :], **attrs)


@pytest.mark.parametrize("name", sorted(READ_AGAIN))
@pytest.mark.parametrize("change", [torch.Tensor.bfloat16, torch.Tensor.double, lambda a: a[: a.shape[0] // 2]])
def test_what_a_forward_kept_is_checked_again(name, change):
    """Hooks for saved tensors may compress them, and fail to undo it."""
    arrays, attrs = inputs(name)
    outputs, saved = KERNELS[name].forward_train(*arrays, **attrs)
    with pytest.raises((TypeError, ValueError)):
        KERNELS[name].backward(outputs, tuple(arrays), tuple(map(change, saved)), **attrs)


@pytest.mark.parametrize("mixer", ["mamba", "mamba2", "rwkv7"])
def test_a_decoder_takes_parameters_of_any_dtype(mixer):
    part = {"name": mixer, "head_dim": 16} if mixer != "mamba" else {"name": mixer}
    backend = create("backend", "cpu")
    model = LanguageModel(ModelConfig(vocab_size=40, d_model=32, n_layers=1, mixer=part))
    params = {name: backend.asarray(value).bfloat16() for name, value in model.init(0).items()}
    F = backend.bind(mode="infer")
    plain, recorded = PlainDecoder(model, backend, F, params, 2), backend.decoder(model, F, params, batch=2)
    for step in range(3):
        tokens = np.array([step, 7 - step])
        np.testing.assert_allclose(recorded.step(tokens), plain.step(tokens), rtol=1e-2, atol=1e-2)
