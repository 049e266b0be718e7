"""The Numba selective scan against a plain loop in float64, differentiated by torch."""

import math
import sys
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_plugin_cpu.kernels import _threads
from helix_plugin_cpu.kernels import selective_scan as scan
from helix_plugin_cpu.kernels._scan_forward import tile_steps

NAMES = scan.NAMES
OPTIONAL = NAMES[5:]


def oracle(u, delta, A, B, C, D, z, delta_bias, initial_state, reset, lengths, *, delta_softplus=False):
    """The op, a step at a time."""
    dt = delta if delta_bias is None else delta + delta_bias
    if delta_softplus:
        dt = torch.where(dt > 30, dt, torch.log1p(torch.exp(dt.clamp(max=30))))
    h = torch.zeros(u.shape[0], *A.shape, dtype=u.dtype) if initial_state is None else initial_state
    ys = []
    for t in range(u.shape[1]):
        valid = torch.ones(u.shape[0], dtype=torch.bool) if lengths is None else t < lengths
        if reset is not None:
            h = torch.where((reset[:, t] & valid)[:, None, None], 0.0, h)
        following = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        h = torch.where(valid[:, None, None], following, h)
        y = (h * C[:, t, None, :]).sum(-1)
        y = y if D is None else y + D * u[:, t]
        y = y if z is None else y * z[:, t] * torch.sigmoid(z[:, t])
        ys.append(torch.where(valid[:, None], y, 0.0))
    return (torch.stack(ys, 1) if ys else u * 0), h


def make(batch, length, channels, states, seed=0, absent=(), **replaced):
    """The eleven inputs, random, without those in `absent`."""
    B, L, D, N = batch, length, channels, states
    g = torch.Generator().manual_seed(seed)
    found = {
        "u": torch.randn(B, L, D, generator=g),
        "delta": torch.randn(B, L, D, generator=g),
        "A": -8 * torch.rand(D, N, generator=g),
        "B": torch.randn(B, L, N, generator=g),
        "C": torch.randn(B, L, N, generator=g),
        "D": torch.randn(D, generator=g),
        "z": 3 * torch.randn(B, L, D, generator=g),
        "delta_bias": torch.randn(D, generator=g),
        "initial_state": torch.randn(B, D, N, generator=g),
        "reset": torch.rand(B, L, generator=g) < 0.1,
        "lengths": torch.randint(0, L + 1, (B,), generator=g),
    } | replaced
    return tuple(None if name in absent else found[name] for name in NAMES)


def wide(arrays):
    return tuple(a.double() if a is not None and a.is_floating_point() else a for a in arrays)


def error(found, expected):
    """The largest difference, relative to the largest value."""
    if not expected.numel():
        assert found.shape == expected.shape
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def check(arrays, *, delta_softplus=True, seed=1, forward=2e-6, backward=1e-5):
    """Outputs and gradients are those of the oracle; the inputs stay as they were."""
    before = [None if a is None else a.clone() for a in arrays]
    leaves = [a.requires_grad_() if a is not None and a.is_floating_point() else a for a in wide(arrays)]
    expected = oracle(*leaves, delta_softplus=delta_softplus)
    g = torch.Generator().manual_seed(seed)
    grads = tuple(torch.randn(e.shape, generator=g) for e in expected)
    sum((e * gr.double()).sum() for e, gr in zip(expected, grads, strict=True)).backward()
    outputs, saved = scan.forward_train(*arrays, delta_softplus=delta_softplus)
    for found, again in zip(outputs, scan.forward(*arrays, delta_softplus=delta_softplus), strict=True):
        assert torch.equal(found, again)
    (B, L, D), N = arrays[0].shape, arrays[2].shape[1]
    assert tuple(tuple(s.shape) for s in saved) == scan.residual_shapes(B, L, D, N)
    for found, wanted in zip(outputs, expected, strict=True):
        assert error(found, wanted.detach()) < forward
    found_grads = scan.backward(grads, arrays, saved, delta_softplus=delta_softplus)
    for name, found, leaf in zip(NAMES, found_grads, leaves, strict=True):
        if leaf is None or not leaf.is_floating_point():
            assert found is None, name
        else:
            wanted = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            assert found.shape == leaf.shape
            assert error(found, wanted) < backward, name
    for a, b in zip(arrays, before, strict=True):
        assert a is None or torch.equal(a, b)


@pytest.mark.parametrize("shape", [(2, 70, 33, 16), (1, 1, 1, 1), (3, 33, 17, 5), (2, 20, 3, 130), (1, 140, 64, 256)])
@pytest.mark.parametrize("delta_softplus", [False, True])
def test_everything_at_once(shape, delta_softplus):
    arrays = make(*shape)
    if not delta_softplus:
        arrays = (arrays[0], arrays[1].abs(), *arrays[2:7], arrays[7].abs(), *arrays[8:])
    check(arrays, delta_softplus=delta_softplus)


@pytest.mark.parametrize("name", OPTIONAL)
def test_each_optional_input_alone(name):
    check(make(2, 40, 20, 16, absent=set(OPTIONAL) - {name}))


def test_only_required_inputs():
    check(make(2, 40, 20, 16, absent=OPTIONAL))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 4), st.integers(0, 70), st.integers(1, 70), st.integers(1, 20),
    st.sets(st.sampled_from(OPTIONAL)), st.booleans(), st.integers(0, 1000),
)  # fmt: skip
def test_ragged_shapes(B, L, D, N, absent, delta_softplus, seed):
    arrays = make(B, L, D, N, seed, absent)
    if not delta_softplus:
        bias = arrays[7] if arrays[7] is None else arrays[7].abs()
        arrays = (arrays[0], arrays[1].abs(), *arrays[2:7], bias, *arrays[8:])
    check(arrays, delta_softplus=delta_softplus, seed=seed)


def test_strided_rows_are_read_in_place():
    B, L, D, N = 2, 50, 48, 16
    xz, projected = torch.randn(B, L, 2 * D), torch.randn(B, L, 7 + 2 * N)
    strided = {
        "u": xz[..., :D],
        "z": xz[..., D:],
        "B": projected[..., 7 : 7 + N],
        "C": projected[..., 7 + N :],
    }
    arrays = make(B, L, D, N, **strided)
    whole = [None if a is None else a.contiguous() for a in arrays]
    found, expected = (scan.forward(*given, delta_softplus=True) for given in (arrays, whole))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    check(arrays)


def test_any_other_layout():
    arrays = make(2, 19, 20, 6)
    turned = tuple(a if a is None or a.ndim < 2 else a.mT.contiguous().mT for a in arrays)
    check(turned)
    check((arrays[0][:1].expand(2, 19, 20), arrays[1][:, :1].expand(2, 19, 20), *arrays[2:]))


@pytest.mark.parametrize("shape", [(0, 5, 8, 4), (2, 0, 8, 4), (0, 0, 1, 1)])
def test_empty(shape):
    arrays = make(*shape, absent=("reset", "lengths"))
    (y, last), saved = scan.forward_train(*arrays)
    assert y.shape == shape[:3]
    assert torch.equal(last, arrays[8])
    grads = scan.backward((torch.zeros_like(y), torch.ones_like(last)), arrays, saved)
    assert torch.equal(grads[8], torch.ones_like(last))
    assert all(g.shape == a.shape and not g.any() for g, a in zip(grads[:8], arrays[:8], strict=True))


def test_absent_gradients():
    arrays = make(2, 40, 20, 16)
    (y, last), saved = scan.forward_train(*arrays, delta_softplus=True)
    dy, dlast = torch.randn_like(y), torch.randn_like(last)
    both, one, other = (
        scan.backward(grads, arrays, saved, delta_softplus=True) for grads in ((dy, dlast), (dy, None), (None, dlast))
    )
    for name, sum_, a, b in zip(NAMES[:9], both, one, other, strict=False):
        assert error(a + b, sum_.double()) < 2e-6, name


def test_chunks_equal_the_whole():
    arrays = make(2, 100, 24, 16, absent=("lengths",))
    y, last = scan.forward(*arrays, delta_softplus=True)
    state, parts = arrays[8], []
    for start, stop in ((0, 1), (1, 33), (33, 34), (34, 100)):
        piece = [a[:, start:stop] if name in ("u", "delta", "B", "C", "z", "reset") else a
                 for name, a in zip(NAMES, arrays, strict=True)]  # fmt: skip
        piece[8] = state
        part, state = scan.forward(*piece, delta_softplus=True)
        parts.append(part)
    assert error(torch.cat(parts, 1), y.double()) < 1e-6
    assert error(state, last.double()) < 1e-6


def test_nothing_crosses_a_reset_or_enters_from_padding():
    """NaN before a reset and behind the end of a row: neither outputs nor gradients notice."""
    tile = tile_steps(16)
    for at in (1, tile - 1, tile, tile + 5):
        L = 2 * tile
        reset = torch.zeros(1, L, dtype=torch.bool)
        reset[0, at] = True
        arrays = make(1, L, 20, 16, reset=reset, lengths=torch.tensor([L - 3]))
        for a in (arrays[0], arrays[1], arrays[3], arrays[4], arrays[6]):
            a[:, :at] = math.nan
            a[:, L - 3 :] = math.nan
        arrays[8].fill_(math.nan)
        (y, last), saved = scan.forward_train(*arrays, delta_softplus=True)
        assert y[:, :at].isnan().all()
        assert not y[:, at:].isnan().any()
        assert not y[:, L - 3 :].any()
        assert not last.isnan().any()
        dy = torch.zeros_like(y)
        dy[:, at:] = 1.0
        grads = scan.backward((dy, torch.ones_like(last)), arrays, saved, delta_softplus=True)
        for index in (0, 1, 6):
            assert not grads[index][:, at:].isnan().any()
            assert not grads[index][:, L - 3 :].any()


def test_no_gradient_crosses_a_reset():
    L = 3 * tile_steps(16)
    for at in (0, 1, L // 3, L // 2):
        reset = torch.zeros(2, L, dtype=torch.bool)
        reset[:, at] = True
        arrays = make(2, L, 20, 16, reset=reset, absent=("lengths",))
        outputs, saved = scan.forward_train(*arrays, delta_softplus=True)
        dy = torch.ones_like(outputs[0])
        dy[:, :at] = 0.0
        grads = scan.backward((dy, torch.ones_like(outputs[1])), arrays, saved, delta_softplus=True)
        assert not any(grads[index][:, :at].any() for index in (0, 1, 3, 4, 6))
        assert grads[0][:, at].any()
        assert not grads[8].any()


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
@pytest.mark.parametrize("payload", [0x7FC00000, 0x7FC00155, -0x3FFF55])
def test_nan_reaches_what_it_touches(name, payload):
    arrays = make(1, 40, 20, 6, absent=("reset", "lengths"))
    poisoned = arrays[NAMES.index(name)].flatten()
    poisoned[7 % len(poisoned)] = torch.tensor(payload, dtype=torch.int32).view(torch.float32)
    arrays = tuple(poisoned.view(a.shape) if n == name else a for n, a in zip(NAMES, arrays, strict=True))
    expected = oracle(*wide(arrays), delta_softplus=True)
    for found, wanted in zip(scan.forward(*arrays, delta_softplus=True), expected, strict=True):
        assert torch.equal(found.isnan(), wanted.isnan())


def test_extremes():
    L, D, N = 64, 16, 16
    delta = torch.tensor([-1e30, -200.0, -90.0, -20.0, 0.0, 1e-40, 20.0, 95.0, 1e3, 1e30] * 7)[:L]
    arrays = make(1, L, D, N, absent=("delta_bias", "reset", "lengths"))
    arrays[1].copy_(delta[None, :, None].expand(1, L, D))
    arrays[0][0, 40:44] = 0.0
    arrays[3][0, 30:34] = 1e-41
    arrays[0].clamp_(-1e-3, 1e-3)
    expected = oracle(*wide(arrays), delta_softplus=True)
    for found, wanted in zip(scan.forward(*arrays, delta_softplus=True), expected, strict=True):
        assert found.isfinite().all()
        assert error(found, wanted) < 2e-6
    assert error(scan.forward(*arrays, delta_softplus=True)[0][:, 6:9], expected[0][:, 6:9]) < 2e-6


def test_a_decay_near_one_stays_accurate_over_many_steps():
    g = torch.Generator().manual_seed(0)
    arrays = make(1, 3000, 16, 16, absent=OPTIONAL, A=-torch.rand(16, 16, generator=g) * 1e-3)
    delta = torch.rand(1, 3000, 16, generator=g)
    check((arrays[0], delta, *arrays[2:]), delta_softplus=False, forward=5e-6, backward=2e-5)


def test_growth():
    """Up to 1e14: the logarithm of a product of forty, 32, is rounded to float32's last bits."""
    check(make(1, 40, 16, 8, absent=("reset", "lengths"), A=torch.rand(16, 8) * 0.5), forward=5e-5, backward=1e-4)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def everything(arrays):
    outputs, saved = scan.forward_train(*arrays, delta_softplus=True)
    # Written out by the kernels themselves: torch's own parallel loops may hang in a forked child.
    grads = scan.backward(outputs, arrays, saved, delta_softplus=True)
    return [*outputs, *(g for g in grads if g is not None)]


def test_results_do_not_depend_on_threads(threads):
    arrays = make(2, 128, 144, 16)
    threads(1)
    expected = everything(arrays)
    for count in (1, 2, 3, 7):
        threads(count)
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(everything(arrays), expected, strict=True))


@pytest.mark.parametrize("count", [2, 7])
def test_a_pool_stands_in_for_torchs_threads(count, threads, monkeypatch):
    """Where torch's OpenMP has no GOMP_parallel; more threads than cores, and than jobs."""
    arrays = make(2, 128, 144, 16)
    threads(count)
    expected = everything(arrays)
    monkeypatch.setattr(_threads, "_parallel", None)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(everything(arrays), expected, strict=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="torch's OpenMP is another one")
def test_torchs_threads_are_found(threads):
    """And the pool that stands in for them starts none."""
    threads(5)
    arrays, before = make(2, 128, 144, 16), set(threading.enumerate())
    everything(arrays)
    assert set(threading.enumerate()) <= before


def test_two_python_threads(threads):
    threads(2)
    inputs = [make(2, 128, 96, 16, seed=i) for i in range(3)]
    expected = [everything(a) for a in inputs]
    wrong = []

    def work(i):
        for _ in range(10):
            if not all(torch.equal(a, b) for a, b in zip(everything(inputs[i]), expected[i], strict=True)):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert not wrong
    assert not any(w.is_alive() for w in workers)


@pytest.mark.parametrize(
    ("replaced", "kind", "message"),
    [
        (
            {"u": torch.zeros(1, 4, 2, dtype=torch.float64)},
            TypeError,
            r"u is torch.float64.*float32.*\.float\(\)",
        ),
        ({"z": torch.zeros(1, 4, 2, dtype=torch.float64)}, TypeError, "z is torch.float64"),
        ({"A": torch.zeros(3, 3)}, ValueError, r"A has shape \(3, 3\), expected \(2, 3\)"),
        ({"delta": torch.zeros(1, 5, 2)}, ValueError, "delta has shape"),
        ({"reset": torch.zeros(1, 5, dtype=torch.bool)}, ValueError, "reset has shape"),
        ({"initial_state": torch.zeros(1, 3, 2)}, ValueError, "initial_state has shape"),
        ({"u": torch.zeros(4, 2)}, ValueError, r"u must be \(B, L, D\)"),
        ({"B": torch.zeros(1, 4, 3, device="meta")}, ValueError, "B is on meta"),
    ],
)
def test_wrong_inputs(replaced, kind, message):
    with pytest.raises(kind, match=message):
        scan.forward(*make(1, 4, 2, 3, **replaced))
