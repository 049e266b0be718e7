"""The Numba convolution against a plain loop in float64, differentiated by torch."""

import math
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_plugin_cpu.kernels import causal_conv1d as conv
from helix_plugin_cpu.kernels._conv_jobs import TILE

NAMES = conv.NAMES
OPTIONAL = NAMES[2:]


def oracle(x, weight, bias, initial_state, reset, lengths, *, activation="none"):
    """The op, a row and a step at a time."""
    (B, L, D), K = x.shape, weight.shape[1]
    ys, lasts = [], []
    for b in range(B):
        seen = torch.zeros(K - 1, D, dtype=x.dtype) if initial_state is None else initial_state[b]
        end = L if lengths is None else int(lengths[b])
        row = [x[b, :0]]
        for t in range(end):
            if reset is not None and reset[b, t]:
                seen = torch.zeros_like(seen)
            window = torch.cat([seen, x[b, t : t + 1]])
            value = (window * weight.T).sum(0) + (0.0 if bias is None else bias)
            row.append((value * torch.sigmoid(value) if activation == "silu" else value)[None])
            seen = window[1:]
        row.append(torch.zeros(L - end, D, dtype=x.dtype))
        ys.append(torch.cat(row))
        lasts.append(seen)
    return torch.stack(ys), torch.stack(lasts)


def make(batch, length, channels, taps, seed=0, absent=(), **replaced):
    """The six inputs, random, without those in `absent`."""
    g = torch.Generator().manual_seed(seed)
    found = {
        "x": torch.randn(batch, length, channels, generator=g),
        "weight": torch.randn(channels, taps, generator=g),
        "bias": torch.randn(channels, generator=g),
        "initial_state": torch.randn(batch, taps - 1, channels, generator=g),
        "reset": torch.rand(batch, length, generator=g) < 0.1,
        "lengths": torch.randint(0, length + 1, (batch,), generator=g),
    } | replaced
    return tuple(None if name in absent else found[name] for name in NAMES)


def error(found, expected):
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    if not expected.numel():
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def check(arrays, *, activation="silu", seed=1):
    """Outputs and gradients are those of the oracle; the inputs stay as they were."""
    before = [None if a is None else a.clone() for a in arrays]
    leaves = [a.double().requires_grad_() if a is not None and a.is_floating_point() else a for a in arrays]
    expected = oracle(*leaves, activation=activation)
    g = torch.Generator().manual_seed(seed)
    grads = tuple(torch.randn(e.shape, generator=g) for e in expected)
    total = sum((e * gr.double()).sum() for e, gr in zip(expected, grads, strict=True))
    if total.requires_grad:
        total.backward()
    outputs, saved = conv.forward_train(*arrays, activation=activation)
    assert saved == conv.residual_shapes(*arrays[0].shape, arrays[1].shape[1]) == ()
    for found, wanted in zip(outputs, expected, strict=True):
        assert error(found, wanted.detach()) < 1e-6
    for name, found, leaf in zip(
        NAMES, conv.backward(grads, arrays, saved, activation=activation), leaves, strict=True
    ):
        if leaf is None or not leaf.is_floating_point():
            assert found is None, name
        else:
            assert error(found, torch.zeros_like(leaf) if leaf.grad is None else leaf.grad) < 5e-6, name
    for a, b in zip(arrays, before, strict=True):
        assert a is None or torch.equal(a, b)


@pytest.mark.parametrize(
    "shape",
    [(2, 2 * TILE + 5, 40, 4), (3, 2, 17, 4), (2, 70, 16, 3), (4, 9, 1, 1), (3, 3, 5, 7), (2, 80, 33, 70)],
)
@pytest.mark.parametrize("activation", ["none", "silu"])
def test_everything_at_once(shape, activation):
    check(make(*shape), activation=activation)


@pytest.mark.parametrize("name", [*OPTIONAL, None])
def test_each_optional_input_alone(name):
    check(make(2, TILE + 7, 20, 4, absent=set(OPTIONAL) - {name}))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 3), st.integers(0, 80), st.integers(1, 70), st.integers(1, 6),
    st.sets(st.sampled_from(OPTIONAL)), st.sampled_from(["none", "silu"]), st.integers(0, 1000),
)  # fmt: skip
def test_ragged_shapes(B, L, D, K, absent, activation, seed):
    check(make(B, L, D, K, seed, absent), activation=activation, seed=seed)


def test_layouts():
    B, L, D = 2, 50, 48
    half = torch.randn(B, L, 2 * D)[..., D:]
    arrays = make(B, L, D, 4, x=half)
    found, expected = conv.forward(*arrays), conv.forward(half.contiguous(), *arrays[1:])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    check(arrays)
    check(tuple(a if a is None or a.ndim < 2 else a.mT.contiguous().mT for a in arrays))
    check((half[:1].expand(B, L, D), *arrays[1:]))


@pytest.mark.parametrize("shape", [(0, 5, 8, 4), (2, 0, 8, 4), (0, 0, 1, 1)])
def test_empty(shape):
    arrays = make(*shape, absent=("reset", "lengths"))
    y, last = conv.forward(*arrays)
    assert y.shape == shape[:3]
    assert torch.equal(last, arrays[3])
    grads = conv.backward((y, torch.ones_like(last)), arrays, ())
    assert torch.equal(grads[3], torch.ones_like(last))
    assert all(g.shape == a.shape and not g.any() for g, a in zip(grads[:3], arrays[:3], strict=True))


def test_absent_gradients():
    arrays = make(2, 40, 20, 4)
    y, last = conv.forward(*arrays, activation="silu")
    dy, dlast = torch.randn_like(y), torch.randn_like(last)
    both, one, other = (
        conv.backward(grads, arrays, (), activation="silu") for grads in ((dy, dlast), (dy, None), (None, dlast))
    )
    for name, sum_, a, b in zip(NAMES[:4], both, one, other, strict=False):
        assert error(a + b, sum_) < 1e-6, name


def test_chunks_equal_the_whole():
    x, *rest = make(2, 150, 24, 4, absent=("lengths",))
    y, last = conv.forward(x, *rest, activation="silu")
    state, parts = rest[2], []
    for start, stop in ((0, 1), (1, 3), (3, 70), (70, 150)):
        part, state = conv.forward(x[:, start:stop], *rest[:2], state, rest[3][:, start:stop], activation="silu")
        parts.append(part)
    assert torch.equal(torch.cat(parts, 1), y)
    assert torch.equal(state, last)


def test_nothing_crosses_a_reset_or_enters_from_padding():
    for at in (0, 1, TILE - 1, TILE, TILE + 5):
        L = 2 * TILE
        reset = torch.zeros(1, L, dtype=torch.bool)
        reset[0, at] = True
        arrays = make(1, L, 20, 4, reset=reset, lengths=torch.tensor([L - 2]))
        arrays[0][:, :at] = math.nan
        arrays[0][:, L - 2 :] = math.nan
        arrays[3].fill_(math.nan)
        y, last = conv.forward(*arrays, activation="silu")
        assert y[:, :at].isnan().all()
        assert not y[:, at:].isnan().any()
        assert not y[:, L - 2 :].any()
        assert not last.isnan().any()
        dy = torch.ones_like(y)
        dy[:, :at] = 0.0
        grads = conv.backward((dy, torch.ones_like(last)), arrays, ())
        assert not grads[0][:, :at].any()
        assert grads[0][:, at].any()
        assert not grads[0][:, L - 2 :].any()
        assert not grads[3].any()


def test_nan_and_infinity():
    for value in (math.nan, math.inf):
        x, weight, bias, *_ = make(1, 20, 20, 4)
        x[0, 7, 3] = value
        y, _ = conv.forward(x, weight.abs(), bias, activation="silu")
        touched = torch.zeros_like(y, dtype=torch.bool)
        touched[0, 7:11, 3] = True
        assert torch.equal(~y.isfinite(), touched)


def test_extremes():
    x, *rest = make(1, 64, 16, 4, absent=("reset", "lengths"))
    scale = torch.tensor([0.0, 1e-42, 1e-30, 1.0, 90.0, 1e4, 1e20, -1.0])
    x = x * scale.repeat(8)[None, :, None]
    expected = oracle(*(a if a is None else a.double() for a in (x, *rest)), activation="silu")
    y, _ = conv.forward(x, *rest, activation="silu")
    assert y.isfinite().all()
    assert error(y, expected[0]) < 1e-6
    calm = (expected[0].abs() < 1e3).nonzero(as_tuple=True)
    assert float((y[calm] - expected[0][calm]).abs().max()) < 1e-3


def everything(arrays):
    outputs, saved = conv.forward_train(*arrays, activation="silu")
    # Not through torch, whose own parallel loops may hang in a forked child.
    grads = conv.backward(outputs, arrays, saved, activation="silu")
    return [*outputs, *(g for g in grads if g is not None)]


def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_results_do_not_depend_on_threads(threads):
    arrays = make(3, 200, 144, 4)
    threads(1)
    expected = everything(arrays)
    for count in (1, 2, 3, 7):
        threads(count)
        assert all(same(everything(arrays), expected) for _ in range(3))


def test_two_python_threads(threads):
    threads(2)
    inputs = [make(2, 256, 96, 4, seed=i) for i in range(2)]
    expected = [everything(a) for a in inputs]
    right = []
    workers = [
        threading.Thread(target=lambda i=i: right.extend(same(everything(inputs[i]), expected[i]) for _ in range(10)))
        for i in range(2)
    ]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert right == [True] * 20


@pytest.mark.parametrize(
    ("replaced", "kind", "message"),
    [
        (
            {"x": torch.zeros(1, 4, 2, dtype=torch.float64)},
            TypeError,
            r"x is torch.float64.*float32.*\.float\(\)",
        ),
        ({"weight": torch.zeros(3, 4)}, ValueError, r"weight has shape \(3, 4\), expected \(2, 4\)"),
        ({"weight": torch.zeros(2, 0)}, ValueError, "K >= 1"),
        ({"initial_state": torch.zeros(1, 4, 2)}, ValueError, "initial_state has shape"),
        ({"lengths": torch.zeros(2, dtype=torch.int64)}, ValueError, "lengths has shape"),
        ({"x": torch.zeros(4, 2)}, ValueError, r"x must be \(B, L, D\)"),
    ],
)
def test_wrong_inputs(replaced, kind, message):
    with pytest.raises(kind, match=message):
        conv.forward(*make(1, 4, 2, 4, **replaced))


def test_unknown_activation():
    with pytest.raises(ValueError, match="activation must be 'none' or 'silu', not 'relu'"):
        conv.forward(*make(1, 4, 2, 4), activation="relu")
