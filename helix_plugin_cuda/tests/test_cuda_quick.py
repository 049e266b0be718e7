"""Every kernel on one sample with all its inputs: values in each dtype, gradients in each, odd layouts, long offsets.

The whole kit runs in the slow tier (`test_cuda_kit`): the interpreter takes a millisecond for what a card does in none.
"""

import array_api_compat.torch as xp
import numpy as np
import pytest
import torch

from helix_core import UsageError, create
from helix_core.ops import OPS, Sample
from helix_core.plugin_system import kernel_descriptors
from helix_plugin_cuda.kernels import (
    _launch,
    diagonal_ssm,
    linear_scan,
    long_conv,
    rms_norm,
    rwkv7,
    selective_scan,
    wkv4,
)
from helix_testing.levels.base import as_tuple
from helix_testing.levels.grad import check_gradient
from helix_testing.levels.ops import call, check_values, to_backend

OURS = sorted({d.op for plugin, d in kernel_descriptors() if plugin == "cuda" and d.name == d.op})
TRAINABLE = [op for op in OURS if set(OPS[op].arrays) - OPS[op].no_grad]
SLOPES = {"bfloat16": 6e-2, "float16": 1.2e-2}


def over_chunks(op, rng):
    """Every input of a recurrence, over more than one chunk of time; None for other ops."""
    B, L, D, N = 1, 37, 3, 5
    steps, keys = (B, L, D), (B, L, 1, N)
    made = {
        "selective_scan": {
            "u": steps, "delta": steps, "A": (D, N), "B": (B, L, N), "C": (B, L, N), "D": D, "z": steps,
            "delta_bias": D, "initial_state": (B, D, N),
        },
        "diagonal_ssm": {"u": steps, "log_a": (D, N, 2), "c": (D, N, 2), "initial_state": (B, D, N, 2)},
        "wkv4": {"k": steps, "v": steps, "log_decay": D, "bonus": D, "initial_state": (B, 2, D)},
        "rwkv7": {
            "r": keys, "log_decay": keys, "k": keys, "v": (B, L, 1, D), "a": keys, "b": keys,
            "initial_state": (B, 1, N, D),
        },
    }  # fmt: skip
    if op not in made:
        return None
    arrays = {name: rng.normal(size=shape) for name, shape in made[op].items()}
    for name in {"A", "log_decay"} & set(arrays):
        arrays[name] = -rng.random(arrays[name].shape)
    if op == "diagonal_ssm":
        arrays["log_a"][..., 0] = -rng.random((D, N))
    if op == "rwkv7":
        arrays["a"] /= -np.linalg.norm(arrays["a"], axis=-1, keepdims=True)
        arrays["b"] = -arrays["a"] * rng.random(keys)
    ragged = {"reset": rng.random((B, L)) < 0.1, "lengths": np.array([34])}
    return Sample(arrays | ragged, {"delta_softplus": True} if op == "selective_scan" else {}, "chunks")


def sample_of(op, rng):
    """The first sample with every optional input, over more than one chunk of time where that is cheap."""
    sample = over_chunks(op, rng)
    if sample is not None:
        return sample
    samples = [s for s in OPS[op].samples(rng) if len(s.arrays) == max(len(s.arrays) for s in OPS[op].samples(rng))]
    return samples[0] if len(samples) < 3 else samples[2 if op == "ssd" else 0]


@pytest.fixture(scope="module")
def backend():
    return create("backend", "cuda")


@pytest.mark.parametrize("op", OURS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_values(backend, op, dtype, rng):
    F = backend.bind(dtype=dtype, mode="infer")
    assert F.trail[op].chosen == f"cuda/{op}"
    check_values(backend, F, OPS[op], sample_of(op, rng), dtype)


@pytest.mark.parametrize("op", TRAINABLE)
def test_gradients(backend, op, rng):
    F = backend.bind(mode="train")
    check_gradient(backend, F, OPS[op], sample_of(op, rng), "float32", rng)


@pytest.mark.parametrize("op", TRAINABLE)
@pytest.mark.parametrize("dtype", SLOPES)
def test_gradients_of_half_precision_are_those_of_the_rounded_inputs(backend, op, dtype, rng):
    sample, F = sample_of(op, rng), backend.bind(dtype=dtype, mode="train")
    arrays = to_backend(backend, sample, dtype)
    leaves = {n: a.requires_grad_() if a.is_floating_point() else a for n, a in arrays.items()}
    outputs = as_tuple(getattr(F, op)(*(leaves.get(n) for n in OPS[op].arrays), **sample.attrs))
    exact = {
        n: a.detach().cpu().double().requires_grad_() if a.is_floating_point() else a.cpu() for n, a in arrays.items()
    }
    expected = as_tuple(OPS[op].reference(xp, *(exact.get(n) for n in OPS[op].arrays), **sample.attrs))
    weights = [torch.from_numpy(rng.normal(size=tuple(e.shape))) for e in expected]
    sum((w.to(o.device) * o.double()).sum() for w, o in zip(weights, outputs, strict=True)).backward()
    sum((w * e).sum() for w, e in zip(weights, expected, strict=True)).backward()
    for name, leaf in leaves.items():
        if leaf.requires_grad:
            assert leaf.grad.dtype == leaf.dtype
            wanted = exact[name].grad
            scale = max(float(wanted.abs().max()), 0.1)
            assert float((leaf.grad.cpu().double() - wanted).abs().max()) <= SLOPES[dtype] * scale, name


def halves(backend, array):
    """The same values as every other half of a wider row: unit stride in the last axis only."""
    tensor = backend.asarray(array, "float32")
    return torch.cat([tensor, tensor + 1], dim=-1)[..., : tensor.shape[-1]]


@pytest.mark.parametrize("op", ["linear_scan", "causal_conv1d", "gated_linear_attention", "swiglu"])
def test_strided_inputs(backend, op, rng):
    F, sample = backend.bind(mode="infer"), sample_of(op, rng)
    plain = to_backend(backend, sample, "float32")
    strided = {n: halves(backend, a) if np.ndim(a) > 2 else plain[n] for n, a in sample.arrays.items()}
    expected, found = (call(backend, F, OPS[op], arrays, sample) for arrays in (plain, strided))
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_rows_beyond_what_32_bits_address(tmp_path):
    """The second row starts 2^31 + 64 elements after the first: in a file of holes, so that nothing is allocated."""
    far = 2**31 + 64
    if torch.cuda.is_available():
        base = torch.empty(far + 64, dtype=torch.bfloat16, device="cuda")
    else:
        file = np.memmap(tmp_path / "holes", dtype=np.int16, mode="w+", shape=far + 64)
        base = torch.from_numpy(file).view(torch.bfloat16)
    x = base.as_strided((2, 3, 4), (far, 4, 1))
    values = torch.arange(24, dtype=torch.bfloat16).reshape(2, 3, 4) / 8
    x.copy_(values)
    a = torch.full((2, 3, 4), 0.5, dtype=torch.bfloat16, device=x.device)
    y, _ = linear_scan.forward(a, x)
    expected, _ = OPS["linear_scan"].reference(xp, a.cpu().double(), values.double())
    assert torch.allclose(y.cpu().double(), expected, rtol=1e-2)
    u = torch.ones(2, 3, 4, device=x.device)
    rates, keys = -torch.ones(4, 2, device=x.device), torch.ones(2, 3, 2, device=x.device)
    y, _ = selective_scan.forward(x, u, rates, keys, keys)
    near, _ = selective_scan.forward(values.to(x.device), u, rates, keys, keys)
    assert torch.equal(y, near)
    system = torch.full((4, 2, 2), -0.5, device=x.device)
    assert torch.equal(*(diagonal_ssm.forward(v.to(x.device), system, system)[0] for v in (x, values)))
    slow = torch.full((4,), -0.5, device=x.device)
    assert torch.equal(*(wkv4.forward(v.to(x.device), v.to(x.device), slow, slow)[0] for v in (x, values)))
    tiles, steps = (v.to(x.device)[:, :, None] for v in (x, values))
    state = torch.ones(2, 1, 4, 4, device=x.device)
    for run in (rwkv7.forward, lambda *arrays: rwkv7.forward_train(*arrays)[0]):
        assert torch.equal(*(run(v, -v, v, v, v, v, state)[0] for v in (tiles, steps)))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: rms_norm.forward(torch.ones(2, 3), torch.ones(4)), r"weight has shape \(4,\), expected \(3,\)"),
        (lambda: rms_norm.forward(torch.ones(2, 3).double(), torch.ones(3)), "float32, bfloat16 and float16"),
        (lambda: rms_norm.forward(torch.ones(2, 3), None), "weight is missing"),
        (lambda: linear_scan.forward(torch.ones(2, 3), torch.ones(2, 3)), r"x must be \(B, L, D\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(run, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run()


def test_a_nan_stays_in_its_row(backend):
    F = backend.bind(mode="infer")
    a, x = torch.full((2, 20, 3), 0.9), torch.ones(2, 20, 3)
    x[0, 5, 1] = float("nan")
    reset = torch.zeros(2, 20, dtype=torch.bool)
    reset[0, 18] = True
    y, last = F.linear_scan(*(t.to(backend.home) for t in (a, x)), None, reset.to(backend.home))
    bad = y.cpu().isnan()
    assert bad[0, 5:18, 1].all()
    assert bad.sum() == 13
    assert not last.isnan().any()


@pytest.mark.parametrize("D", [1, 3])
def test_decoding_goes_on_where_a_prompt_ended(backend, rng, D):
    F = backend.bind(mode="infer")
    x, w = torch.from_numpy(rng.normal(size=(2, 9, D))).float(), torch.from_numpy(rng.normal(size=(D, 4))).float()
    x, w = x.to(backend.home), w.to(backend.home)
    whole, end = F.causal_conv1d(x, w, activation="silu")
    y, state = F.causal_conv1d(x[:, :6], w, activation="silu")
    parts = [y]
    for t in range(6, 9):
        y, state = F.causal_conv1d(x[:, t : t + 1], w, None, state, activation="silu")
        parts.append(y)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-6)
    assert torch.equal(state, end)


OF_HEADS = ("ssd", "gated_linear_attention", "gated_delta_rule", "rwkv7")
STEPPED = (*OF_HEADS, "selective_scan", "diagonal_ssm", "wkv4", "linear_scan", "causal_conv1d")


def first_steps(op, count, rng, ragged):
    """A few steps of a sample, from a state; with resets and padding if `ragged`."""
    sample = sample_of(op, rng)
    B, L = next(a.shape[:2] for n, a in sample.arrays.items() if n == "reset")
    arrays = {n: a[:, :count] if np.shape(a)[:2] == (B, L) else a for n, a in sample.arrays.items()}
    if not ragged:
        return Sample({n: a for n, a in arrays.items() if n not in ("reset", "lengths")}, sample.attrs, "one step")
    arrays["reset"] = np.tile(np.arange(count) == 1, (B, 1))
    return Sample(arrays | {"lengths": np.arange(B) % 2 + count - 1}, sample.attrs, "a few steps")


@pytest.mark.parametrize("op", STEPPED)
def test_a_step_of_decoding_is_one_launch_of_one_step(backend, op, rng):
    F, launched = backend.bind(mode="infer"), []

    def listen(kernel, args, meta):
        launched.append((kernel.fn.__name__, meta))

    _launch.listeners.append(listen)
    try:
        check_values(backend, F, OPS[op], first_steps(op, 1, rng, False), "float32")
    finally:
        _launch.listeners.remove(listen)
    ((name, meta),) = launched
    assert name == ("fused_recurrent_kernel" if op in OF_HEADS else "_forward")
    assert meta.get("STEPS", 1) == 1
    check_values(backend, F, OPS[op], first_steps(op, 3, rng, True), "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_long_convolution_on_tensor_cores(backend, monkeypatch, dtype, rng):
    monkeypatch.setattr(long_conv, "chosen", lambda kernel, shapes, ways, run: ways[-1])
    shape = (3, 40, 2)
    arrays = {name: rng.normal(size=shape) for name in ("u", "pre", "post")}
    arrays |= {"filter": rng.normal(size=(50, 2)), "initial_state": rng.normal(size=(3, 5, 2))}
    sample = Sample({**arrays, "lengths": np.array([40, 0, 33])}, label="tensor cores")
    check_values(backend, backend.bind(dtype=dtype, mode="infer"), OPS["long_conv"], sample, dtype)
    if dtype == "float32":
        check_gradient(backend, backend.bind(mode="train"), OPS["long_conv"], sample, dtype, rng)


def test_a_target_outside_the_classes_is_nan_and_nothing_else_is(backend):
    F = backend.bind(mode="infer")
    logits, targets = torch.ones(4, 5).to(backend.home), torch.tensor([0, 5, -1, 4]).to(backend.home)
    assert F.cross_entropy(logits, targets).isnan().tolist() == [False, True, True, False]
    x, weight = torch.ones(4, 3).to(backend.home), torch.ones(5, 3).to(backend.home)
    assert F.linear_cross_entropy(x, weight, targets).isnan().tolist() == [False, True, True, False]


def test_a_nan_among_the_inputs_of_a_head_stays_in_its_row(backend):
    F = backend.bind(mode="infer")
    x, weight, targets = torch.ones(70, 3), torch.ones(300, 3), torch.zeros(70, dtype=torch.int64)
    x[66, 2], x[3, 0], x[5, 1] = float("nan"), float("-inf"), float("inf")
    nats = F.linear_cross_entropy(*(a.to(backend.home) for a in (x, weight, targets))).cpu()
    assert nats.isnan().nonzero().flatten().tolist() == [3, 5, 66]


def test_heads_too_wide_for_a_kernel_are_refused_with_a_way_out(backend):
    F = backend.bind(mode="infer")
    wide = torch.ones(1, 2, 1, 512).to(backend.home)
    with pytest.raises(UsageError, match="up to 256 keys and values") as error:
        F.gated_linear_attention(wide, wide, wide, -wide)
    assert "HELIX_KERNEL_GATED_LINEAR_ATTENTION=core/reference" in str(error.value)
