"""The Numba long convolution against sums of products in float64, differentiated by torch."""

import math
import threading
import weakref

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_plugin_cpu.kernels import long_conv as conv
from helix_plugin_cpu.kernels._fft_plan import plan
from helix_plugin_cpu.kernels._spectra import kept_spectrum
from helix_testing import BaseKernelTests

NAMES = conv.NAMES
OPTIONAL = NAMES[2:]


class TestLongConv(BaseKernelTests):
    kernel, op, backend = "cpu/long_conv", "long_conv", "cpu"


def oracle(u, filter, pre, post, initial_state, reset, lengths):
    """The op, a row and a document at a time, by a matrix of the filter's values."""
    B, L, D = u.shape
    v = u if pre is None else u * pre
    rows = []
    for b in range(B):
        end = L if lengths is None else int(lengths[b])
        history, before = v[b, :end], 0
        if initial_state is not None:
            history, before = torch.cat([initial_state[b], history]), initial_state.shape[1]
        starts = [0] if reset is None else [0, *(before + t for t in range(end) if reset[b, t])]
        parts = []
        for begin, stop in zip(starts, [*starts[1:], before + end], strict=True):
            n = stop - begin
            lag = torch.arange(n)[:, None] - torch.arange(n)[None, :]
            inside = (lag >= 0) & (lag < filter.shape[0])
            matrix = torch.where(inside[..., None], filter[lag.clamp(0, filter.shape[0] - 1)], 0.0)
            parts.append(torch.einsum("tsd,sd->td", matrix, history[begin:stop]))
        y = torch.cat(parts)[before:]
        if post is not None:
            y = y * post[b, :end]
        rows.append(torch.cat([y, torch.zeros(L - end, D, dtype=u.dtype)]))
    return torch.stack(rows)


def make(batch, length, channels, taps, seed=0, absent=(), before=5, **replaced):
    """The seven inputs, random, without those in `absent`."""
    g = torch.Generator().manual_seed(seed)
    found = {
        "u": torch.randn(batch, length, channels, generator=g),
        "filter": torch.randn(taps, channels, generator=g),
        "pre": torch.randn(batch, length, channels, generator=g),
        "post": torch.randn(batch, length, channels, generator=g),
        "initial_state": torch.randn(batch, before, channels, generator=g),
        "reset": torch.rand(batch, length, generator=g) < 0.05,
        "lengths": torch.randint(0, length + 1, (batch,), generator=g),
    } | replaced
    return tuple(None if name in absent else found[name] for name in NAMES)


def error(found, expected, least=1e-30):
    """The largest difference, relative to the largest value, or to `least` where sums cancelled."""
    assert found.shape == expected.shape
    if not expected.numel():
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=least))


def check(arrays, seed=1):
    """Output and gradients are those of the oracle; the inputs stay as they were."""
    before = [None if a is None else a.clone() for a in arrays]
    leaves = [a.double().requires_grad_() if a is not None and a.is_floating_point() else a for a in arrays]
    expected = oracle(*leaves)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(seed))
    (expected * grad.double()).sum().backward()
    (y,), saved = conv.forward_train(*arrays)
    shapes = [None if a is None else tuple(a.shape) for a in arrays]
    assert tuple(tuple(s.shape) for s in saved) == conv.residuals(*shapes)
    assert error(y, expected.detach(), 0.1) < 2e-6
    assert torch.equal(y, conv.forward(*arrays)[0])
    for name, found, leaf in zip(NAMES, conv.backward((grad,), arrays, saved), leaves, strict=True):
        if leaf is None or not leaf.is_floating_point():
            assert found is None, name
        else:
            assert error(found, torch.zeros_like(leaf) if leaf.grad is None else leaf.grad, 0.1) < 1e-5, name
    for a, b in zip(arrays, before, strict=True):
        assert a is None or torch.equal(a, b)


@pytest.mark.parametrize(
    "shape", [(2, 200, 40, 200), (3, 2, 17, 4), (1, 64, 16, 64), (4, 9, 1, 30), (3, 300, 5, 7), (1, 129, 33, 500)]
)
def test_everything_at_once(shape):
    check(make(*shape))


@pytest.mark.parametrize("name", [*OPTIONAL, None])
def test_each_optional_input_alone(name):
    check(make(2, 150, 20, 150, absent=set(OPTIONAL) - {name}))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 3), st.integers(1, 150), st.integers(1, 50), st.integers(1, 200), st.integers(0, 40),
    st.sets(st.sampled_from(OPTIONAL)), st.integers(0, 1000),
)  # fmt: skip
def test_ragged_shapes(B, L, D, K, before, absent, seed):
    check(make(B, L, D, K, seed, absent, before), seed=seed)


@pytest.mark.parametrize("length", [64, 128, 129, 256, 512, 1024, 2048, 4096, 5000, 8192, 16384, 32768, 65536, 131072])
def test_every_plan(length):
    """Forward and both gradients against torch's transforms in float64; sizes up to every kind of plan."""
    u, filter, *_ = make(1, length, 17, length)
    dy = torch.randn(u.shape, generator=torch.Generator().manual_seed(2))
    leaves = [a.double().requires_grad_() for a in (u, filter)]
    spectra = [torch.fft.rfft(leaf, n=2 * length, dim=-2) for leaf in leaves]
    expected = torch.fft.irfft(spectra[0] * spectra[1], n=2 * length, dim=-2)[:, :length]
    (expected * dy).sum().backward()
    (y,), saved = conv.forward_train(u, filter)
    assert error(y, expected.detach()) < 2e-6
    found = conv.backward((dy,), (u, filter), saved)
    assert error(found[0], leaves[0].grad) < 2e-6
    assert error(found[1], leaves[1].grad) < 2e-6


@pytest.mark.slow
def test_a_million_steps():
    """An impulse response is the filter itself, and it ends where the row ends."""
    length = 1_000_000
    u = torch.zeros(1, length, 16)
    filter = torch.randn(length, 16)
    u[0, 0] = 1.0
    u[0, 400_000, 3] = -2.0
    y = conv.forward(u, filter)[0][0]
    expected = filter.clone()
    expected[400_000:, 3] -= 2 * filter[:600_000, 3]
    assert error(y, expected) < 2e-6


def test_plans_grow_by_half_at_most():
    assert plan(1).points == 64
    for length in (65, 1000, 1025, 4097, 100_000, 1_000_001):
        assert length <= plan(length).points < 2 * length


def test_layouts():
    B, L, D = 2, 80, 48
    wide = torch.randn(B, L, 3 * D)
    thirds = wide[..., :D], wide[..., D : 2 * D], wide[..., 2 * D :]
    arrays = make(B, L, D, L, u=thirds[0], pre=thirds[1], post=thirds[2])
    dense = tuple(a if a is None else a.contiguous() for a in arrays)
    assert torch.equal(conv.forward(*arrays)[0], conv.forward(*dense)[0])
    check(arrays)
    check(tuple(a if a is None or a.ndim < 2 else a.mT.contiguous().mT for a in arrays))
    check((thirds[0][:1].expand(B, L, D), *arrays[1:]))


@pytest.mark.parametrize("shape", [(0, 5, 8, 4), (2, 0, 8, 4), (2, 5, 0, 4)])
def test_empty(shape):
    arrays = make(*shape, absent=("reset", "lengths"))
    (y,), saved = conv.forward_train(*arrays)
    assert y.shape == shape[:3]
    for grad, array in zip(conv.backward((y,), arrays, saved)[:5], arrays[:5], strict=True):
        assert grad.shape == array.shape
        assert not grad.any()


def test_chunks_equal_the_whole():
    u, filter, *_ = make(2, 150, 24, 150)
    y = conv.forward(u, filter)[0]
    parts, begin = [], 0
    for width in (1, 2, 60, 1, 86):
        state = u[:, :begin] if begin else None
        parts.append(conv.forward(u[:, begin : begin + width], filter, None, None, state)[0])
        begin += width
    assert error(torch.cat(parts, 1), y) < 1e-6


@pytest.mark.parametrize("length", [conv.DIRECT, 3 * conv.DIRECT])
def test_nothing_crosses_a_reset_or_enters_from_padding(length):
    for at in (0, 1, 9):
        reset = torch.zeros(1, length, dtype=torch.bool)
        reset[0, at] = True
        arrays = make(1, length, 20, length, reset=reset, lengths=torch.tensor([length - 2]), absent=("pre",))
        arrays[0][:, :at] = math.nan
        arrays[0][:, length - 2 :] = math.nan
        arrays[4].fill_(math.nan)
        y, saved = conv.forward_train(*arrays)
        y = y[0]
        assert y[:, :at].isnan().all()
        assert not y[:, at:].isnan().any()
        assert not y[:, length - 2 :].any()
        dy = torch.ones_like(y)
        dy[:, :at] = 0.0
        clean = tuple(a if a is None or not a.is_floating_point() else a.nan_to_num(0.0) for a in arrays)
        grads = conv.backward((dy,), clean, saved)
        assert not grads[0][:, :at].any()
        assert grads[0][:, at:-2].any()
        assert not grads[0][:, length - 2 :].any()
        assert not grads[4].any()


def test_nan_stays_in_its_row_and_channel():
    u, filter, *_ = make(2, 100, 20, 100)
    u[0, 7, 3] = math.nan
    y = conv.forward(u, filter)[0]
    assert y[0, 7:, 3].isnan().all()
    y[0, :, 3] = 0.0
    assert y.isfinite().all()


def test_extremes():
    u, filter, *_ = make(1, 128, 16, 128)
    for scale in (0.0, 1e-42, 1e-30, 1e30):
        y = conv.forward(u * scale, filter)[0]
        expected = oracle((u * scale).double(), filter.double(), *(None,) * 5)
        assert error(y, expected) < 2e-6 if scale != 1e-42 else float((y - expected).abs().max()) < 1e-42


def test_a_spectrum_is_kept_while_its_filter_is_what_it_was():
    u, filter, *_ = make(1, 100, 16, 100)
    points = plan(100).points
    first = conv.forward(u, filter)[0]
    spectrum = kept_spectrum(filter, points, lambda: pytest.fail("the convolution kept none"))
    conv.forward(u, filter)
    assert kept_spectrum(filter, points, lambda: pytest.fail("it was computed anew")) is spectrum
    filter.mul_(2.0)
    assert error(conv.forward(u, filter)[0], 2 * first) < 1e-6
    spectrum = weakref.ref(kept_spectrum(filter, points, lambda: pytest.fail("the convolution kept none")))
    assert spectrum() is not None
    del filter
    assert spectrum() is None


def test_filters_of_inference_mode():
    with torch.inference_mode():
        u, filter, *_ = make(1, 100, 16, 100)
        first = conv.forward(u, filter)[0]
        filter.mul_(2.0)
        assert error(conv.forward(u, filter)[0], 2 * first) < 1e-6


def everything(arrays):
    outputs, saved = conv.forward_train(*arrays)
    grads = conv.backward(outputs, arrays, saved)
    return [*outputs, *(g for g in grads if g is not None)]


def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("channels", [20, 144])
def test_results_do_not_depend_on_threads(threads, channels):
    arrays = make(5, 700, channels, 700)
    threads(1)
    expected = everything(arrays)
    for count in (1, 2, 3, 7):
        threads(count)
        assert all(same(everything(arrays), expected) for _ in range(3))


def test_two_python_threads(threads):
    threads(2)
    inputs = [make(2, 600, 96, 600, seed=i) for i in range(2)]
    expected = [everything(a) for a in inputs]
    right = []
    workers = [
        threading.Thread(target=lambda i=i: right.extend(same(everything(inputs[i]), expected[i]) for _ in range(5)))
        for i in range(2)
    ]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert right == [True] * 10


@pytest.mark.parametrize(
    ("replaced", "kind", "message"),
    [
        ({"u": torch.zeros(1, 4, 2, dtype=torch.float64)}, TypeError, r"u is torch.float64.*float32.*\.float\(\)"),
        ({"filter": torch.zeros(4, 3)}, ValueError, r"filter has shape \(4, 3\), expected \(4, 2\)"),
        ({"filter": torch.zeros(0, 2)}, ValueError, "K >= 1"),
        ({"initial_state": torch.zeros(2, 4, 2)}, ValueError, "initial_state has shape"),
        ({"initial_state": torch.zeros(2, 4)}, ValueError, r"initial_state must be \(B, S, D\)"),
        ({"pre": torch.zeros(1, 3, 2)}, ValueError, "pre has shape"),
        ({"lengths": torch.zeros(2, dtype=torch.int64)}, ValueError, "lengths has shape"),
        ({"u": torch.zeros(4, 2)}, ValueError, r"u must be \(B, L, D\)"),
    ],
)
def test_wrong_inputs(replaced, kind, message):
    with pytest.raises(kind, match=message):
        conv.forward(*make(1, 4, 2, 4, **replaced))
