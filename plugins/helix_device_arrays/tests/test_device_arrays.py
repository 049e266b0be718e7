"""Views say where elements lie, programs read the same in both languages, and functions are NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_core import create
from helix_core.errors import UsageError
from helix_core.plugin_system import explain
from helix_device_arrays import device
from helix_device_arrays.device import Buffer
from helix_device_arrays.views import View, collapsed

BACKENDS = ("opencl", "webgpu")


def places(view):
    """The place of every element, as NumPy computes it."""
    grid = np.indices(view.shape) if view.shape else np.zeros((0,))
    return view.offset + sum((i * s for i, s in zip(grid, view.strides, strict=True)), np.zeros(view.shape, int))


@st.composite
def moves(draw):
    """A random chain of views, beside the same of a NumPy array that holds its own places."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    view, array = View.of(shape), np.arange(int(np.prod(shape))).reshape(shape)
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["permute", "cut", "broadcast", "reshape"]))
        if kind == "permute":
            axes = draw(st.permutations(range(array.ndim)))
            view, array = view.permute(axes), array.transpose(axes)
        elif kind == "cut":
            steps = tuple(draw(st.sampled_from([1, 2, -1])) for _ in array.shape)
            starts = tuple(0 if s > 0 else n - 1 for s, n in zip(steps, array.shape, strict=True))
            sizes = tuple(len(range(n)[::s]) for s, n in zip(steps, array.shape, strict=True))
            view, array = view.cut(starts, steps, sizes), array[tuple(slice(None, None, s) for s in steps)]
        elif kind == "broadcast":
            wanted = (2, *(3 if n == 1 else n for n in array.shape))
            view, array = view.broadcast(wanted), np.broadcast_to(array, wanted)
        else:
            wanted = (array.shape[0] * array.shape[1], *array.shape[2:]) if array.ndim > 1 else (*array.shape, 1)
            moved = view.reshape(wanted)
            if moved is None:
                continue
            view, array = moved, array.reshape(wanted)
    return view, array


@settings(deadline=None)
@given(moves())
def test_views_lead_where_numpy_leads(pair):
    view, array = pair
    assert view.shape == array.shape
    assert np.array_equal(places(view), array)


@settings(deadline=None)
@given(moves(), st.integers(0, 4))
def test_merged_axes_visit_the_same_places_in_order(pair, boundary):
    view, array = pair
    sizes, (_, strides), before = collapsed([View.of(view.shape), view], min(boundary, len(view.shape)))
    assert np.array_equal(places(View(tuple(sizes), tuple(strides), view.offset)).ravel(), array.ravel())
    assert np.prod(sizes[:before]) == np.prod(view.shape[:boundary])


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    selection = explain("backend", request.param)
    if selection.component is None:
        pytest.skip(f"{request.param} cannot be used here: {selection.error}")
    return create("backend", request.param)


CASES = {
    "broadcasting": lambda xp, x, y, i: x + 2 * y - x[:1],
    "a view of a view": lambda xp, x, y, i: xp.flip(xp.permute_dims(x, (2, 0, 1))[1:, ::2], axis=1) * 3,
    "a reshape that must copy": lambda xp, x, y, i: xp.reshape(xp.permute_dims(x, (1, 0, 2)), (7, -1)),
    "comparisons and where": lambda xp, x, y, i: xp.where((x > 0) & (x < 1), x, -xp.ones_like(x)),
    "functions": lambda xp, x, y, i: xp.exp(x) + xp.log1p(x * x) * xp.tanh(x) - xp.expm1(-xp.abs(x)),
    "angles": lambda xp, x, y, i: xp.sin(50 * x) + xp.cos(x) + xp.atan2(x, y),
    "whole numbers": lambda xp, x, y, i: (i * 7 - 20) % 6 + (i - 5) // 3 + ((i ^ 3) & 5) + (i >> 1),
    "a type of its own": lambda xp, x, y, i: xp.astype(x * 10, xp.int32) + xp.astype(i > 2, xp.int32)[..., :1],
    "sums": lambda xp, x, y, i: xp.sum(x * x, axis=(0, 2)) + xp.mean(x),
    "long sums": lambda xp, x, y, i: xp.sum(xp.tile(x, (1, 20, 3)), axis=1),
    "extremes": lambda xp, x, y, i: xp.max(x, axis=1, keepdims=True) - xp.min(x, axis=-1)[..., None],
    "truth": lambda xp, x, y, i: xp.astype(xp.any(x > 2, axis=-1), xp.int32) + xp.astype(xp.all(i >= 0), xp.int32),
    "running sums": lambda xp, x, y, i: xp.cumulative_sum(x, axis=1),
    "long running sums": lambda xp, x, y, i: xp.cumulative_sum(xp.tile(x, (1, 90, 1)), axis=1),
    "order": lambda xp, x, y, i: xp.argsort(i, axis=-1, stable=True) + xp.argmax(x, axis=-1)[..., None],
    "sorted": lambda xp, x, y, i: xp.sort(x, axis=1),
    "taken": lambda xp, x, y, i: xp.take(x, xp.reshape(i, (-1,)) % 5, axis=0),
    "taken along": lambda xp, x, y, i: xp.take_along_axis(x, i, axis=2) * 2,
    "joined": lambda xp, x, y, i: xp.concat([x, x + 1, x[:, :2]], axis=1),
    "stacked and parted": lambda xp, x, y, i: xp.stack(xp.unstack(x, axis=1)[::-1], axis=2),
    "a product": lambda xp, x, y, i: xp.matmul(x, xp.matrix_transpose(x)),
    "a thin product": lambda xp, x, y, i: x[:, :1] @ xp.permute_dims(x, (0, 2, 1)) + xp.matmul(x, y)[:, :1, None],
    "a wide product": lambda xp, x, y, i: xp.reshape(x, (35, 33)) @ xp.tile(x[0, :3], (11, 3)),
    "a product over four axes": lambda xp, x, y, i: x[:, None, :, None] @ xp.permute_dims(x, (0, 2, 1))[:, None, None],
    "repeated": lambda xp, x, y, i: xp.repeat(x[:, ::2], 3, axis=1) + xp.repeat(y[:11], 3),
    "found": lambda xp, x, y, i: xp.searchsorted(xp.sort(y), x) + xp.searchsorted(xp.sort(y), x, side="right"),
    "rolled": lambda xp, x, y, i: xp.roll(x, 2, axis=1) + xp.roll(x, -1, axis=-1),
    "triangles": lambda xp, x, y, i: xp.tril(x) - xp.triu(x, k=1) + xp.sign(x),
    "ranges": lambda xp, x, y, i: xp.arange(33, dtype=x.dtype) * x + xp.arange(2, 9)[:, None],
    "nothing": lambda xp, x, y, i: xp.concat([x[:, :0], x], axis=1)[:, 7:],
}


@pytest.mark.parametrize("case", CASES)
def test_functions_are_numpys(backend, case, rng):
    x, y = rng.normal(size=(5, 7, 33)).astype(np.float32), rng.normal(size=33).astype(np.float32)
    i = rng.integers(33, size=(5, 7, 9)).astype(np.int32)
    expected = CASES[case](np, x.astype(np.float64), y.astype(np.float64), i)
    found = CASES[case](backend.xp, *map(backend.asarray, (x, y, i)))
    assert found.shape == expected.shape
    exact = expected.dtype.kind in "ib"
    scale = float(np.abs(expected).max(initial=0.1))
    assert np.allclose(backend.to_numpy(found), expected, rtol=0, atol=0 if exact else 3e-6 * scale)


def test_what_is_elementwise_is_one_kernel(backend, rng):
    x = backend.asarray(rng.normal(size=(64, 48)).astype(np.float32))
    before = backend.transfers()
    y = backend.xp.tanh(x * 2 + 1)[::2].T - backend.xp.exp(-x[::2].T)
    assert backend.transfers()["launches"] == before["launches"], "nothing is computed before it is asked for"
    assert backend.to_numpy(y).shape == (48, 32)
    after = backend.transfers()
    assert after["launches"] == before["launches"] + 1
    assert (after["uploads"], after["downloads"]) == (before["uploads"], before["downloads"] + 1)


def test_special_numbers_stay_special(backend):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 88.0, 100.0, -100.0, -200.0], np.float32)
    xp, on_device = backend.xp, backend.asarray(x)
    for name in ("exp", "tanh", "log1p", "abs", "sqrt"):
        with np.errstate(all="ignore"):
            expected = getattr(np, name)(x)
        found = backend.to_numpy(getattr(xp, name)(on_device))
        tiny = np.abs(expected) < 1e-37  # a device may take what is smaller for 0
        assert np.allclose(found[~tiny], expected[~tiny], rtol=3e-6, equal_nan=True), name
    assert np.isnan(backend.to_numpy(xp.max(on_device)))
    assert np.isnan(backend.to_numpy(xp.maximum(on_device, 0.0))[0])


def test_transforms_are_numpys(backend, rng):
    x = rng.normal(size=(3, 100, 5)).astype(np.float32)
    for n in (128, 2, 1, 1024):
        ours, theirs = backend.xp.fft.rfft(backend.asarray(x), n=n, axis=1), np.fft.rfft(x, n=n, axis=1)
        scale = np.abs(theirs).max()
        assert np.allclose(backend.to_numpy(ours.real), theirs.real, atol=2e-6 * scale)
        assert np.allclose(backend.to_numpy(ours.imag), theirs.imag, atol=2e-6 * scale)
        back = backend.to_numpy(backend.xp.fft.irfft(ours * ours, n=n, axis=1))
        expected = np.fft.irfft(theirs * theirs, n=n, axis=1)
        assert np.allclose(back, expected, atol=4e-6 * np.abs(expected).max())
    with pytest.raises(UsageError, match="powers of two"):
        backend.xp.fft.rfft(backend.asarray(x), axis=1)


def test_what_does_not_fit_is_refused(backend):
    with pytest.raises(UsageError, match="32 bits"):
        backend.asarray(np.array([2**31], np.int64))
    x = backend.asarray(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="broadcast"):
        _ = x + backend.asarray(np.ones(4, np.float32))
    with pytest.raises(IndexError, match="outside"):
        _ = x[2]
    with pytest.raises(UsageError, match="do not mix"):
        _ = x + np.ones((2, 3), np.float32)


def test_memory_is_used_again(backend, rng, monkeypatch):
    x = backend.asarray(rng.normal(size=(256, 256)).astype(np.float32))
    memory = {}

    def buffer(raw, nbytes):
        memory[id(raw)] = raw, nbytes
        return Buffer(raw, nbytes)

    monkeypatch.setattr(device, "Buffer", buffer)
    for _ in range(50):
        x = backend.xp.tanh(x + x.mean())
        x.leaf()
    assert 256 * 256 * 4 <= sum(nbytes for _, nbytes in memory.values()) <= 8 * 256 * 256 * 4


def test_more_work_than_one_axis_of_a_launch_has(backend):
    count = 65535 * min(backend.arrays.width, 64) + 3
    found = backend.to_numpy(backend.xp.arange(count) * 3 - 1)
    assert np.array_equal(found, np.arange(count, dtype=np.int32) * 3 - 1)


def test_what_is_too_large_for_the_device_is_refused(backend):
    device = backend.arrays
    limit, device.max_bytes = device.max_bytes, 1 << 20
    try:
        with pytest.raises(UsageError, match="smaller batch"):
            backend.asarray(np.zeros((1 << 18) + 1, np.float32))
    finally:
        device.max_bytes = limit


def test_other_numbers_are_no_other_programs(backend, rng):
    x = rng.normal(size=(3, 5)).astype(np.float32)
    on_device, before = backend.asarray(x), 0
    for i, number in enumerate((0.3, -7.25, np.inf, 1e-30)):
        with np.errstate(all="ignore"):
            assert np.allclose(backend.to_numpy(on_device * number), x * np.float32(number))
        if not i:
            before = backend.transfers()["programs"]
    assert backend.transfers()["programs"] == before


def test_arrays_of_two_backends_mix(backend):
    other = create("backend", backend.name)
    x = backend.asarray(np.arange(3.0)) + other.asarray(np.ones(3))
    assert other.to_numpy(x).tolist() == [1, 2, 3]


def test_bytes_stay_bytes_and_become_numbers(backend, rng):
    x = rng.integers(256, size=(5, 7), dtype=np.uint8)
    on_device, xp = backend.asarray(x), backend.xp
    assert backend.asarray(np.zeros((64, 100), np.uint8)).leaf().buffer.nbytes < 2 * 64 * 100
    assert np.array_equal(backend.to_numpy(on_device), x)
    assert backend.to_numpy(on_device).dtype == np.uint8
    wide = x.astype(np.int64)
    for found, expected in (
        ((on_device >> 2) & 3, wide >> 2 & 3),
        (on_device[1:, ::2], wide[1:, ::2]),
        (on_device.T.reshape(-1), wide.T.reshape(-1)),
        (xp.concat([on_device, on_device[:2]], axis=0), np.concatenate([wide, wide[:2]])),
        (xp.sum(on_device, axis=1), wide.sum(1)),
        (xp.zeros_like(on_device) + on_device * 300, wide * 300),
        (xp.take(on_device, backend.asarray(np.array([3, 0])), axis=0), wide[[3, 0]]),
        (backend.asarray(np.arange(256))[on_device], wide),
        (xp.where(on_device > 100, on_device, -on_device), np.where(wide > 100, wide, -wide)),
    ):
        assert np.array_equal(backend.to_numpy(found), expected)


def test_rounding_is_to_even(backend):
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4, 1e9, 126.5], np.float32)
    assert np.array_equal(backend.to_numpy(backend.xp.round(backend.asarray(x))), np.round(x))
