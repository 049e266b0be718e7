"""Ternary weights and the op bit_linear beside transformers' BitNet layers: the same codes, scales and results."""

import numpy as np
import pytest

from helix_core import create
from helix_core.ops.ternary import pack_ternary, unpack_ternary

torch = pytest.importorskip("torch")
bitnet = pytest.importorskip("transformers.integrations.bitnet")


@pytest.fixture(autouse=True)
def eager():
    """Its functions are compiled one by one, which takes longer than they do."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


@pytest.fixture
def op():
    return create("backend", "cpu").bind(mode="infer").bit_linear


def test_weights_become_the_same(rng):
    weight = torch.tensor(rng.normal(size=(24, 52)), dtype=torch.float32)
    packed, scale = pack_ternary(weight.numpy())
    theirs = bitnet.WeightQuant.apply(weight).numpy()
    assert np.allclose(unpack_ternary(packed, 52) * scale, theirs, rtol=1e-6)


def test_packed_layers_give_the_same(op, rng):
    codes = torch.tensor(rng.integers(-1, 2, size=(24, 52)), dtype=torch.float32)
    layer = bitnet.BitLinear(52, 24, bias=True, dtype=torch.float32)
    layer.weight = bitnet.pack_weights(codes.clone())
    layer.weight_scale = torch.tensor([3.0])  # this class divides by it
    layer.bias = torch.tensor(rng.normal(size=24), dtype=torch.float32)
    x = torch.tensor(rng.normal(size=(5, 52)), dtype=torch.float32)
    packed = torch.tensor(pack_ternary(codes.numpy(), 1.0)[0])
    ours, theirs = op(x, packed, torch.tensor(1 / 3), layer.bias), layer(x)
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()
