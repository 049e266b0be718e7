"""Activations in half precision: rounding, kernels and their gradients beside float32, and a model that trains."""

import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.ops import OPS
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._storage import BFLOAT16, FLOAT16, FLOAT32, read, size_of, write
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss

SAME = (
    "diagonal_ssm",
    "gated_delta_rule",
    "gated_linear_attention",
    "linear_scan",
    "long_conv",
    "rwkv7",
    "ssd",
)
"""Kernels whose arithmetic is the same however activations are stored."""

NATIVE = ("add_rms_norm", "causal_conv1d", "cross_entropy", "rms_norm", "selective_scan", "swiglu", *SAME)


@kernel
def copy(source_kind, source, target_kind, target, count):
    for i in range(0, count, 16):
        vector = read(source_kind, source + size_of(source_kind) * i, count - i)
        write(target_kind, target + size_of(target_kind) * i, vector, count - i)


HALF = pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


@pytest.mark.parametrize(("kind", "half"), [(BFLOAT16, torch.bfloat16), (FLOAT16, torch.float16)])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 4099])
def test_rounding_is_torchs(count, kind, half, rng):
    x = torch.from_numpy(np.concatenate([rng.normal(size=count), rng.normal(size=count) * 1e30])).float()[:count]
    for i, special in enumerate(
        (
            float("nan"),
            float("inf"),
            -float("inf"),
            0.0,
            -0.0,
            3.4e38,
            1e-40,
            1.00390625,
            65519.9,
            65520.0,
            6e-8,
            2.9e-8,
        )
    ):
        x[i % count] = special
        y = torch.full((count + 8,), 7.0, dtype=half)
        copy(FLOAT32, x.data_ptr(), kind, y.data_ptr(), count)
        assert torch.equal(y[:count].nan_to_num(9), x.to(half).nan_to_num(9))
        assert (y[count:] == 7).all()
        back = torch.full((count + 8,), 7.0)
        copy(kind, y.data_ptr(), FLOAT32, back.data_ptr(), count)
        assert torch.equal(back[:count].nan_to_num(9), y[:count].float().nan_to_num(9))
        assert (back[count:] == 7).all()


@pytest.fixture(scope="module")
def tables():
    backend = create("backend", "cpu")
    return {dtype: backend.bind(dtype=dtype, mode="train") for dtype in ("float32", "bfloat16", "float16")}


def gradients(F, op, sample, dtype, half):
    """Outputs and gradients, from activations and gradients of outputs rounded to `half` and stored in `dtype`."""
    given = {n: torch.from_numpy(np.asarray(a)) for n, a in sample.arrays.items()}
    small = {"weight", "bias", "A", "D", "delta_bias", "dt_bias", "log_a", "c", "filter", "initial_state", "residual"}
    arrays = {}
    for name, a in given.items():
        if a.is_floating_point():
            a = a.float() if name in small else a.to(half).to(dtype)
            a.requires_grad_(True)
        arrays[name] = a
    out = getattr(F, op.name)(*(arrays.get(n) for n in op.arrays), **sample.attrs)
    out = out if isinstance(out, tuple) else (out,)
    generator = torch.Generator().manual_seed(0)
    total = sum((torch.randn(y.shape, generator=generator).to(half) * y.float()).sum() for y in out)
    leaves = {n: a for n, a in arrays.items() if a.is_floating_point()}
    return out, dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


def close(whole, short, tolerance):
    """Equal up to `tolerance` times the largest value."""
    if whole.numel() == 0:
        return short.numel() == 0
    difference = (whole.detach() - short.detach().float()).abs().max()
    return float(difference) <= tolerance * float(whole.detach().abs().max() + 1e-3)


def table_of(tables, half):
    return tables[str(half).removeprefix("torch.")]


@HALF
@pytest.mark.parametrize("name", NATIVE)
def test_a_kernel_equals_itself_in_float32(tables, name, half, rng):
    op, F = OPS[name], table_of(tables, half)
    assert F.trail[name].chosen == f"cpu/{name}"
    assert "casts" not in F.trail[name].reason
    for sample in op.samples(rng):
        whole, whole_grads = gradients(tables["float32"], op, sample, torch.float32, half)
        short, short_grads = gradients(F, op, sample, half, half)
        for output, a, b in zip(op.outputs, whole, short, strict=True):
            assert b.dtype == (torch.float32 if output in op.wide else half)
            assert close(a, b, 1e-2), output
        for leaf, grad in whole_grads.items():
            assert close(grad, short_grads[leaf], 2e-2), leaf


@HALF
@pytest.mark.parametrize("name", SAME)
def test_only_the_result_is_rounded(tables, name, half, rng):
    op, F = OPS[name], table_of(tables, half)
    for sample in op.samples(rng):
        whole, whole_grads = gradients(tables["float32"], op, sample, torch.float32, half)
        short, short_grads = gradients(F, op, sample, half, half)
        for output, a, b in zip(op.outputs, whole, short, strict=True):
            assert torch.equal(a.to(b.dtype), b), output
        for leaf, grad in whole_grads.items():
            assert torch.equal(grad.to(short_grads[leaf].dtype), short_grads[leaf]), leaf


def test_activations_come_out_short_also_if_all_come_in_whole(tables, rng):
    x = torch.from_numpy(rng.normal(size=(2, 5, 3))).float()
    y, last = tables["bfloat16"].linear_scan(x, x)
    assert y.dtype == torch.bfloat16
    assert last.dtype == torch.float32


def test_a_decay_in_float32_keeps_its_digits(tables):
    decay = torch.full((1, 4000, 3), 0.999)  # 1 in bfloat16
    y, _ = tables["bfloat16"].linear_scan(decay, torch.ones(1, 4000, 3, dtype=torch.bfloat16))
    assert torch.allclose(y[0, -1].float(), torch.full((3,), (1 - 0.999**4000) / 0.001), rtol=4e-3)


@HALF
@pytest.mark.parametrize(
    "name", sorted(name for name in set(OPS) - set(NATIVE) if set(OPS[name].arrays) - OPS[name].no_grad)
)
def test_any_other_op_works_between_casts_or_in_torch(tables, name, half, rng):
    op, F = OPS[name], table_of(tables, half)
    for sample in op.samples(rng):
        out, grads = gradients(F, op, sample, half, half)
        for output, y in zip(op.outputs, out, strict=True):
            assert y.dtype == (torch.float32 if output in op.wide else half)
        assert all(g.isfinite().all() for g in grads.values())


def test_a_model_trains_with_float32_parameters(tables):
    backend = create("backend", "cpu")
    mixers = [{"name": "mamba", "d_state": 4}, {"name": "s4d", "d_state": 4}]
    model = LanguageModel(ModelConfig(vocab_size=32, d_model=16, n_layers=2, mixer=mixers))
    tokens = torch.arange(4 * 25).reshape(4, 25) % 29
    curves = {}
    for dtype, F in tables.items():
        params = {name: backend.asarray(a) for name, a in model.init(0).items()}
        optimizer = create("optimizer", "adamw", lr=1e-2)
        state = optimizer.init(F, params)
        step = backend.value_and_grad(lambda p, F=F: loss(model, F, p, tokens[:, :-1], tokens[:, 1:]))
        curves[dtype] = []
        for number in range(1, 31):
            value, grads = step(params)
            assert all(g.dtype == torch.float32 for g in grads.values())
            curves[dtype].append(float(value))
            with backend.inference():
                params, state = optimizer.update(F, params, grads, state, lr=1e-2, step=number)
        assert all(p.dtype == torch.float32 for p in params.values())
    for dtype in ("bfloat16", "float16"):
        assert curves[dtype][-1] < 0.5 * curves[dtype][0]
        assert np.allclose(curves[dtype], curves["float32"], rtol=0.03)


def test_a_state_stays_float32(tables):
    backend = create("backend", "cpu")
    model = LanguageModel(ModelConfig(vocab_size=32, d_model=16, n_layers=1, mixer=[{"name": "mamba"}]))
    params = {name: backend.asarray(a) for name, a in model.init(0).items()}
    state = model.init_state(tables["bfloat16"], 2)
    with backend.inference():
        _, after = model.apply(tables["bfloat16"], params, torch.zeros(2, 5, dtype=torch.int64), state=state)
    assert {a.dtype for a in after["blocks"][0]["mixer"].values()} == {torch.float32}
