"""Products in half precision: right, and never left to torch where the processor has no instructions for them."""

import numba
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helix_core import components, create
from helix_core.errors import ConfigError
from helix_core.ops import OPS
from helix_plugin_cpu import _isa
from helix_plugin_cpu.kernels import _half, linear
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss

HALF = [torch.bfloat16, torch.float16]
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution", "scaled_dot_product", "linear")


def draw(rng, *shape, dtype):
    return torch.from_numpy(rng.normal(size=shape)).to(dtype)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("weights", ["short", "whole"])
@pytest.mark.parametrize(
    ("rows", "K", "N"),
    [(0, 3, 2), (1, 1, 1), (3, 17, 33), (16, 50, 131), (65, 33, 4), (1025, 5, 7), (2049, 48, 3), (4, 0, 2)],
)
def test_linear_and_its_gradients_are_the_oracles(rows, K, N, weights, dtype, rng):
    weight_dtype = dtype if weights == "short" else torch.float32
    x, weight, bias = (
        draw(rng, rows, K, dtype=dtype),
        draw(rng, N, K, dtype=weight_dtype),
        draw(rng, N, dtype=weight_dtype),
    )
    dy = draw(rng, rows, N, dtype=dtype)
    (y,) = linear.forward(x, weight, bias)
    grads = linear.backward((dy,), (x, weight, bias), ())
    wide = [a.double().requires_grad_(True) for a in (x, weight, bias)]
    exact = torch.nn.functional.linear(*wide)
    exact_grads = torch.autograd.grad(exact, wide, dy.double())
    assert y.dtype == dtype
    for name, found, oracle, size in (
        ("y", y, exact.detach(), 1 + K**0.5),
        ("dx", grads[0], exact_grads[0], 1 + N**0.5),
        ("dweight", grads[1], exact_grads[1], 1 + rows**0.5),
        ("dbias", grads[2], exact_grads[2], 1 + rows**0.5),
    ):
        bound = torch.finfo(found.dtype).eps * oracle.abs() + 1e-5 * size
        assert ((found.double() - oracle).abs() <= bound).all(), name
    assert [g.dtype for g in grads] == [dtype, weight_dtype, weight_dtype]


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_linear_takes_what_lies_otherwise_and_keeps_nan(dtype, rng):
    x = draw(rng, 6, 5, dtype=dtype).T[:, None, :]  # (5, 1, 6), strided
    weight = draw(rng, 6, 9, dtype=dtype).T
    (y,) = linear.forward(x, weight, None)
    assert torch.equal(y, linear.forward(x.contiguous(), weight.contiguous(), None)[0])
    assert y.shape == (5, 1, 9)
    x = x.clone()
    x[2] = float("nan")
    (y,) = linear.forward(x, weight, None)
    assert y[2].isnan().all()
    assert y[[0, 1, 3, 4]].isfinite().all()


def test_linear_refuses_what_does_not_fit(rng):
    with pytest.raises(ValueError, match=r"bias has shape \(3,\), expected \(2,\)"):
        linear.forward(*(draw(rng, *s, dtype=torch.float16) for s in ((4, 5), (2, 5), (3,))))
    with pytest.raises(TypeError, match=r"x is torch\.float64"):
        linear.forward(draw(rng, 4, 5, dtype=torch.float64), draw(rng, 2, 5, dtype=torch.float16), None)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_products_of_arrays_are_rounded_once(dtype, rng):
    xp = create("backend", "cpu").xp
    x, y = draw(rng, 2, 3, 40, dtype=dtype), draw(rng, 2, 40, 5, dtype=dtype)
    assert torch.equal(xp.matmul(x, y), (x.float() @ y.float()).to(dtype))
    assert xp.matmul(x.float(), y.float()).dtype == torch.float32


class Seen(TorchDispatchMode):
    """Which of torch's products got half precision."""

    def __init__(self):
        super().__init__()
        self.short = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__.strip("_")
        if function.namespace == "aten" and name.startswith(PRODUCTS):
            self.short += [name for a in args if isinstance(a, torch.Tensor) and a.dtype in HALF]
        return function(*args, **(kwargs or {}))


def test_what_torch_multiplies_is_seen(rng):
    x = draw(rng, 4, 4, dtype=torch.float16)
    with Seen() as seen:
        torch.nn.functional.linear(x, x)
        x.float() @ x.float()
    assert seen.short


MIXERS = sorted(c.name for c in components("layer") if c.name != "memory_read")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", MIXERS)
def test_no_layer_leaves_a_product_to_torch(name, dtype):
    """In training, of a whole model: embedding, norms, mixers, feed-forward layers, head and all their gradients."""
    if getattr(torch, dtype) not in _half.WIDENED:
        pytest.skip(f"torch multiplies {dtype} with {_half.instructions(getattr(torch, dtype))} here")
    backend = create("backend", "cpu")
    F = backend.bind(dtype=dtype)
    model = LanguageModel(ModelConfig(vocab_size=32, d_model=64, n_layers=1, mixer={"name": name}))
    params = {key: backend.asarray(a) for key, a in model.init(0).items()}
    tokens = torch.arange(2 * 34).reshape(2, 34) % 29
    step = backend.value_and_grad(lambda p: loss(model, F, p, tokens[:, :-1], tokens[:, 1:]))
    with Seen() as seen:
        value, grads = step(params)
    assert value.isfinite()
    assert len(grads) == len(params)
    assert seen.short == []


def test_which_way_is_taken_is_said(monkeypatch):
    backend = create("backend", "cpu")
    described = backend.describe()
    for dtype in ("bfloat16", "float16"):
        name = _half.instructions(getattr(torch, dtype))
        assert described[f"{dtype} products"] == (name or "in float32")
        trail = backend.bind(dtype=dtype).trail["linear"]
        assert trail.chosen == ("torch/linear" if name else "cpu/linear")
        if name:
            assert f"torch multiplies {dtype} with {name} here" in {r.reason for r in trail.refused}


def test_a_chosen_instruction_set_that_is_none_or_absent_is_an_error(monkeypatch):
    # The whole file also runs with a set of instructions chosen, which Numba then has already.
    monkeypatch.setattr(numba.config, "CPU_FEATURES", None)
    for asked, text in (("avx", "did you mean 'avx2'"), ("avx2", "this processor has no mmx9")):
        _isa.features.cache_clear()
        monkeypatch.setenv("HELIX_CPU_ISA", asked)
        monkeypatch.setitem(_isa.NARROW, "avx2", ("haswell", "+avx2,+mmx9"))
        with pytest.raises(ConfigError, match=text):
            _isa.features()
    _isa.features.cache_clear()


def test_the_op_takes_keywords_and_refuses_others(rng):
    F = create("backend", "cpu").bind(dtype="float16")
    x, weight = draw(rng, 3, 4, dtype=torch.float16), draw(rng, 2, 4, dtype=torch.float16)
    assert torch.equal(F.linear(weight=weight, x=x), F.linear(x, weight))
    with pytest.raises(TypeError):
        F.linear(x, weight, biass=None)
    assert OPS["linear"].arrays == ("x", "weight", "bias")
    assert np.shape(F.linear(x, weight)) == (3, 2)
