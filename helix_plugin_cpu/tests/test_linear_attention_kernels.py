"""The kernels of `ssd` and `gated_linear_attention` against their references in float64, and their special cases."""

import math
import threading

import array_api_compat.torch as xp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_core.ops import OPS, Sample
from helix_plugin_cpu.kernels import _threads, table
from helix_testing import BaseKernelTests

FORWARD, BACKWARD = 2e-6, 1e-5


def ssd_inputs(rng, B, L, H, P, G, N, *, optional=True, ragged=True):
    arrays = {
        "x": rng.normal(size=(B, L, H, P)),
        "dt": rng.normal(size=(B, L, H)),
        "A": -rng.uniform(0.1, 16, size=H),
        "B": rng.normal(size=(B, L, G, N)),
        "C": rng.normal(size=(B, L, G, N)),
    }
    if optional:
        arrays |= {
            "D": rng.normal(size=H),
            "dt_bias": rng.normal(size=H),
            "initial_state": rng.normal(size=(B, H, N, P)),
        }
    if ragged:
        arrays |= {"reset": rng.random((B, L)) < 0.1, "lengths": rng.integers(L + 1, size=B)}
    return arrays


def gla_inputs(rng, B, L, H, K, V, decay, *, scales=(0.01, 1, 30), optional=True, ragged=True):
    shape = tuple(size if axis in decay else 1 for axis, size in zip("BLHK", (B, L, H, K), strict=True))
    arrays = {
        "q": rng.normal(size=(B, L, H, K)),
        "k": rng.normal(size=(B, L, H, K)),
        "v": rng.normal(size=(B, L, H, V)),
        "log_decay": -rng.exponential(1.0, size=shape) * rng.choice(scales, size=shape),
    }
    if optional:
        arrays["initial_state"] = rng.normal(size=(B, H, K, V))
    if ragged:
        arrays |= {"reset": rng.random((B, L)) < 0.1, "lengths": rng.integers(L + 1, size=B)}
    return arrays


class TestSSD(BaseKernelTests):
    kernel, op, backend = "cpu/ssd", "ssd", "cpu"

    def samples(self, rng):
        for shape in ((2, 70, 8, 16, 1, 32), (1, 130, 4, 33, 2, 17), (9, 5, 2, 1, 1, 1), (1, 65, 1, 64, 1, 128)):
            yield Sample(ssd_inputs(rng, *shape), {"dt_softplus": True}, f"{shape}")


class TestGatedLinearAttention(BaseKernelTests):
    kernel, op, backend = "cpu/gated_linear_attention", "gated_linear_attention", "cpu"

    def samples(self, rng):
        for shape in ((2, 70, 3, 16, 33), (1, 33, 1, 130, 20), (5, 3, 2, 1, 1)):
            for decay in ("BLHK", "H", "BHK", "LH"):
                yield Sample(gla_inputs(rng, *shape, decay, scales=(1,)), {"scale": 0.3}, f"{shape} {decay}")


def float32(op, arrays):
    made = {n: torch.from_numpy(np.asarray(a)) for n, a in arrays.items()}
    return tuple(made[n].float() if n in made and made[n].is_floating_point() else made.get(n) for n in op.arrays)


def run(name, arrays, attrs, rng):
    """Outputs and gradients of the kernel, and of the reference in float64 on the kernel's own inputs."""
    op, kernel = OPS[name], getattr(table, name)
    inputs = float32(op, arrays)
    leaves = [a.double().requires_grad_() if a is not None and a.is_floating_point() else a for a in inputs]
    expected = op.reference(xp, *leaves, **attrs)
    weights = [torch.from_numpy(rng.normal(size=e.shape)).float() for e in expected]
    wanted = [i for i, leaf in enumerate(leaves) if leaf is not None and leaf.is_floating_point()]
    projection = sum((e * w.double()).sum() for e, w in zip(expected, weights, strict=True))
    exact = torch.autograd.grad(projection, [leaves[i] for i in wanted], materialize_grads=True, allow_unused=True)
    found, saved = kernel.forward_train(*inputs, **attrs)
    grads = kernel.backward(tuple(weights), inputs, saved, **attrs)
    assert all(g is None for i, g in enumerate(grads) if i not in wanted)
    names = {op.arrays[i]: (e, grads[i]) for i, e in zip(wanted, exact, strict=True)}
    return [e.detach() for e in expected], found, names


def check(name, arrays, attrs, rng):
    expected, found, grads = run(name, arrays, attrs, rng)
    for e, f in zip(expected, found, strict=True):
        assert error(f, e) < FORWARD
    for which, (e, f) in grads.items():
        assert f.shape == e.shape
        # The gradient of what all steps share is a sum that may cancel: as exact as the terms, not as what is left. A
        # term is a product over the keys.
        steps = expected[0].shape[0] * expected[0].shape[1]
        size = steps * math.sqrt(expected[1].shape[2])
        assert error(f, e, floor=0.1 if f.numel() >= steps else size) < BACKWARD, which


def error(found, expected, floor=0.5):
    """The largest difference, relative to the largest value, or to what sums of terms of size one may leave."""
    if not expected.numel():
        return 0.0
    assert torch.isfinite(found).all()
    return float((found.double() - expected).abs().max() / expected.abs().max().clamp(min=floor))


@given(
    B=st.integers(1, 3),
    L=st.integers(1, 100),
    H=st.sampled_from([(1, 1), (2, 1), (2, 2), (8, 1), (6, 2), (24, 1)]),
    P=st.integers(1, 40),
    N=st.sampled_from([1, 2, 15, 16, 17, 32, 130]),
    optional=st.booleans(),
    ragged=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ssd_on_any_shape(B, L, H, P, N, optional, ragged, seed):
    rng = np.random.default_rng(seed)
    arrays = ssd_inputs(rng, B, L, H[0], P, H[1], N, optional=optional, ragged=ragged)
    check("ssd", arrays, {"dt_softplus": True, "dt_max": 3.0}, rng)


@given(
    B=st.integers(1, 3),
    L=st.integers(1, 100),
    H=st.integers(1, 3),
    K=st.sampled_from([1, 2, 15, 16, 17, 32, 130]),
    V=st.integers(1, 40),
    decay=st.sampled_from(["BLHK", "BLH", "H", "HK", ""]),
    optional=st.booleans(),
    ragged=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_gated_linear_attention_on_any_shape(B, L, H, K, V, decay, optional, ragged, seed):
    rng = np.random.default_rng(seed)
    arrays = gla_inputs(rng, B, L, H, K, V, decay, optional=optional, ragged=ragged)
    check("gated_linear_attention", arrays, {"scale": K**-0.5}, rng)


@pytest.mark.parametrize("decay", ["BLHK", "BLH"])
@pytest.mark.parametrize("what", ["forgets", "keeps", "grows", "zeros", "denormals", "large inputs"])
def test_extremes(what, decay, rng):
    arrays = gla_inputs(rng, 2, 90, 2, 20, 24, decay, ragged=False)
    gate = arrays["log_decay"]
    if what == "forgets":
        gate[:] = -rng.uniform(0, 0.1, size=gate.shape)
        gate[:, ::7] = -np.inf
        gate[:, 3::7] = -1e30
    elif what == "keeps":
        gate[:] = 0
    elif what == "grows":
        gate[:] = 0.1
    elif what == "zeros":
        arrays = {k: v * 0 for k, v in arrays.items()}
    elif what == "denormals":
        arrays["v"] = arrays["v"] * 1e-40
        arrays["log_decay"] = gate / 30
    else:
        arrays["v"] = arrays["v"] * 1e15
    check("gated_linear_attention", arrays, {}, rng)


@pytest.mark.parametrize("dt", [-60.0, 0.0, 90.0])
def test_step_sizes_of_any_size(dt, rng):
    arrays = ssd_inputs(rng, 1, 70, 4, 16, 1, 16, ragged=False)
    arrays["dt"] = arrays["dt"] + dt
    check("ssd", arrays, {"dt_softplus": True}, rng)


def test_a_decay_near_one_stays_accurate_over_many_steps(rng):
    arrays = gla_inputs(rng, 1, 400, 1, 16, 16, "BLHK", ragged=False)
    arrays["log_decay"] = -1e-4 * rng.random(arrays["log_decay"].shape)
    check("gated_linear_attention", arrays, {}, rng)


def exact_recurrence(arrays, steps):
    """y (B, L, H, V), a step at a time, so that NaN goes where the definition takes it."""
    q, k, v = arrays["q"], arrays["k"], arrays["v"]
    decay = np.exp(np.broadcast_to(arrays["log_decay"], q.shape))
    S, ys = np.array(arrays["initial_state"]), []
    for t in range(steps):
        S = decay[:, t, :, :, None] * S + k[:, t, :, :, None] * v[:, t, :, None, :]
        ys.append((S * q[:, t, :, :, None]).sum(2))
    return np.stack(ys, 1), S


@pytest.mark.parametrize("decay", ["BLHK", "BLH"])
@pytest.mark.parametrize("name", ["q", "k", "v", "log_decay", "initial_state"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_nan_reaches_what_depends_on_it_and_nothing_else(name, decay, poison, rng):
    arrays = gla_inputs(rng, 1, 80, 2, 20, 24, decay, ragged=False)
    arrays[name][0, 37 if name != "initial_state" else 1, 0, 0] = poison
    with np.errstate(invalid="ignore", over="ignore"):
        exact, last = exact_recurrence(arrays, 80)
    y, S = table.gated_linear_attention.forward(*float32(OPS["gated_linear_attention"], arrays))
    assert np.array_equal(np.isfinite(y.numpy()), np.isfinite(exact))
    assert np.array_equal(np.isfinite(S.numpy()), np.isfinite(last))


@pytest.mark.parametrize("decay", ["BLHK", "H"])
def test_nothing_crosses_a_reset_or_enters_from_padding(decay, rng):
    for at in (1, 15, 16, 32, 50):
        arrays = gla_inputs(rng, 1, 96, 2, 20, 24, decay, ragged=False)
        for name in ("q", "k", "v", *(["log_decay"] if decay == "BLHK" else [])):
            arrays[name][:, :at] = math.nan
            arrays[name][:, 90:] = math.nan
        arrays["initial_state"][:] = math.nan
        arrays |= {"reset": np.arange(96)[None] == at, "lengths": np.array([90])}
        inputs = float32(OPS["gated_linear_attention"], arrays)
        (y, last), saved = table.gated_linear_attention.forward_train(*inputs)
        assert y[:, :at].isnan().all()
        assert not y[:, at:].isnan().any()
        assert not y[:, 90:].any()
        assert not last.isnan().any()
        dy = torch.zeros_like(y)
        dy[:, at:] = 1.0
        grads = table.gated_linear_attention.backward((dy, torch.ones_like(last)), inputs, saved)
        for grad in grads[:3]:
            assert not grad[:, at:].isnan().any()
            assert not grad[:, 90:].any()


def test_scratch_memory_is_written_before_it_is_read(rng, monkeypatch):
    """Whatever the memory held before."""

    def poisoned(size, dtype):
        return torch.full((size,), 255, dtype=dtype)  # NaN as floats

    monkeypatch.setattr(_threads, "KEPT_SCRATCH", 0)
    monkeypatch.setattr(_threads, "empty", poisoned)
    check("ssd", ssd_inputs(rng, 2, 39, 4, 10, 2, 7), {"dt_softplus": True}, rng)
    for decay in ("BLHK", "H"):
        check("gated_linear_attention", gla_inputs(rng, 2, 39, 2, 7, 10, decay), {}, rng)


@pytest.mark.parametrize("ragged", [False, True])
def test_one_step_is_the_same_as_many(ragged, rng):
    """Decoding has a kernel of its own."""
    for name, arrays, attrs in (
        ("ssd", ssd_inputs(rng, 3, 1, 4, 20, 2, 18, ragged=False), {"dt_softplus": True, "dt_max": 1.0}),
        ("gated_linear_attention", gla_inputs(rng, 3, 1, 2, 18, 20, "BLHK", ragged=False), {"scale": 0.2}),
        ("gated_linear_attention", gla_inputs(rng, 3, 1, 2, 18, 20, "H", ragged=False), {}),
    ):
        if ragged:
            arrays |= {"reset": np.array([[True], [False], [True]]), "lengths": np.array([1, 0, 0])}
        inputs = float32(OPS[name], arrays)
        step = getattr(table, name).forward(*inputs, **attrs)
        chunk, _ = getattr(table, name).forward_train(*inputs, **attrs)
        for a, b in zip(step, chunk, strict=True):
            assert error(a, b.double(), floor=1.0) < 4e-6  # each may be 2e-6 off


def test_chunks_equal_the_whole(rng):
    arrays = ssd_inputs(rng, 2, 100, 4, 20, 1, 16, ragged=False)
    inputs = float32(OPS["ssd"], arrays)
    y, last = table.ssd.forward(*inputs, dt_softplus=True)
    state, parts = inputs[7], []
    for start, stop in ((0, 1), (1, 33), (33, 34), (34, 100)):
        piece = [a[:, start:stop] if a is not None and i in (0, 1, 3, 4) else a for i, a in enumerate(inputs)]
        piece[7] = state
        part, state = table.ssd.forward(*piece, dt_softplus=True)
        parts.append(part)
    assert error(torch.cat(parts, 1), y.double()) < 4e-6
    assert error(state, last.double()) < 4e-6


def test_strided_inputs_are_read_in_place(rng):
    B, L, H, P, N = 2, 50, 4, 16, 16
    wide = torch.randn(B, L, H * P + 2 * N)
    x = wide[..., : H * P].unflatten(-1, (H, P))
    Bm, C = wide[..., H * P : H * P + N].unflatten(-1, (1, N)), wide[..., H * P + N :].unflatten(-1, (1, N))
    dt, A = torch.rand(B, H, L).transpose(1, 2), -torch.rand(H)
    strided = (x, dt, A, Bm, C)
    dense = tuple(a.contiguous() for a in strided)
    results = [table.ssd.forward_train(*given) for given in (strided, dense)]
    assert all(torch.equal(a, b) for a, b in zip(results[0][0], results[1][0], strict=True))
    grads = [table.ssd.backward(r[0], g, r[1]) for r, g in zip(results, (strided, dense), strict=True)]
    assert all(torch.equal(a, b) for a, b in zip(grads[0][:5], grads[1][:5], strict=True))
    turned = tuple(a.mT.contiguous().mT if a.ndim == 4 else a for a in dense)
    assert torch.equal(table.ssd.forward(*turned)[0], results[1][0][0])


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_nothing_in_nothing_out(shape):
    q, v = torch.zeros(*shape, 3, 4), torch.zeros(*shape, 3, 5)
    g, S = torch.zeros(*shape, 3, 4), torch.randn(shape[0], 3, 4, 5)
    (y, last), saved = table.gated_linear_attention.forward_train(q, q, v, g, S)
    assert y.shape == v.shape
    assert torch.equal(last, S)
    grads = table.gated_linear_attention.backward((None, torch.ones_like(S)), (q, q, v, g, S), saved)
    assert torch.equal(grads[4], torch.ones_like(S))
    assert [a.shape for a in grads[:4]] == [q.shape, q.shape, v.shape, g.shape]


def test_wrong_inputs_are_named():
    x, dt, A, B = torch.zeros(1, 4, 6, 3), torch.zeros(1, 4, 6), torch.zeros(6), torch.zeros(1, 4, 2, 5)
    with pytest.raises(TypeError, match=r"x is torch\.float64"):
        table.ssd.forward(x.double(), dt, A, B, B)
    with pytest.raises(ValueError, match=r"G a divisor of 6 heads, not \(1, 4, 4, 5\)"):
        table.ssd.forward(x, dt, A, torch.zeros(1, 4, 4, 5), torch.zeros(1, 4, 4, 5))
    with pytest.raises(ValueError, match=r"initial_state has shape \(1, 6, 3, 5\), expected \(1, 6, 5, 3\)"):
        table.ssd.forward(x, dt, A, B, B, None, None, torch.zeros(1, 6, 3, 5))
    with pytest.raises(ValueError, match=r"log_decay has shape \(1, 4, 6, 2\)"):
        table.gated_linear_attention.forward(x, x, x, torch.zeros(1, 4, 6, 2))
    with pytest.raises(ValueError, match="four axes"):
        table.gated_linear_attention.forward(x, x, x, dt)


def everything(name, inputs, attrs):
    outputs, saved = getattr(table, name).forward_train(*inputs, **attrs)
    grads = getattr(table, name).backward(outputs, inputs, saved, **attrs)
    return [*outputs, *(g for g in grads if g is not None)]


@pytest.fixture
def cases(rng):
    return [
        ("ssd", float32(OPS["ssd"], ssd_inputs(rng, 2, 256, 24, 32, 1, 32)), {"dt_softplus": True}),
        (
            "gated_linear_attention",
            float32(OPS["gated_linear_attention"], gla_inputs(rng, 4, 256, 3, 32, 32, "BLHK")),
            {},
        ),
    ]


def test_results_do_not_depend_on_the_number_of_threads(cases):
    before = torch.get_num_threads()
    try:
        for case in cases:
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(everything(*case))
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True)), case[0]
    finally:
        torch.set_num_threads(before)


def test_two_python_threads_at_once(cases):
    expected, wrong = [everything(*case) for case in cases], []

    def work(i):
        for _ in range(5):
            if not all(torch.equal(a, b) for a, b in zip(everything(*cases[i]), expected[i], strict=True)):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(cases))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not wrong
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.parametrize("states", [16, 64, 128, 256])
def test_what_is_kept_grows_with_the_inputs_only(states):
    """Twice x or what 16 states take, whichever is more: no state for each step, no scores of pairs of steps."""
    (shape,) = table.ssd.residuals((2, 4096, 8, 64), (2, 4096, 8), (8,), (2, 4096, 1, states))
    assert math.prod(shape) <= 2 * (2 * 4096 * 8 * 64)
    (shape,) = table.gated_linear_attention.residuals(
        (2, 4096, 8, states), None, (2, 4096, 8, 64), (2, 4096, 8, states)
    )
    assert math.prod(shape) <= 2 * (2 * 4096 * 8 * 64)
