"""The references of `ssd` and `gated_linear_attention` work in chunks: they equal the recurrence, a step at a time."""

import numpy as np
import pytest

from helix_core.ops import OPS


def recurrence(q, k, v, decay, S, reset, lengths):
    """Explicit loops over rows and steps, nothing shared with the reference; decay (B, L, H, K)."""
    y, last = np.zeros_like(v), np.array(S)
    for b in range(len(v)):
        for t in range(v.shape[1] if lengths is None else lengths[b]):
            if reset is not None and reset[b, t]:
                last[b] = 0
            for h in range(v.shape[2]):
                last[b, h] = decay[b, t, h][:, None] * last[b, h] + np.outer(k[b, t, h], v[b, t, h])
                y[b, t, h] = q[b, t, h] @ last[b, h]
    return y, last


def gla(q, k, v, log_decay, initial_state=None, reset=None, lengths=None, *, scale=1.0):
    decay = np.exp(np.broadcast_to(log_decay, q.shape))
    S = np.zeros((q.shape[0], *q.shape[2:], v.shape[3])) if initial_state is None else initial_state
    y, last = recurrence(q, k, v, decay, S, reset, lengths)
    return scale * y, last


def mamba2(x, dt, A, B, C, D=None, dt_bias=None, initial_state=None, reset=None, lengths=None, **options):
    dt = dt if dt_bias is None else dt + dt_bias
    dt = np.logaddexp(0, dt) if options.get("dt_softplus") else dt
    dt = np.clip(dt, options.get("dt_min", 0), options.get("dt_max", np.inf))
    share = x.shape[2] // B.shape[2]
    B, C = np.repeat(B, share, axis=2), np.repeat(C, share, axis=2)
    S = np.zeros((*x.shape[:1], *B.shape[2:], x.shape[3])) if initial_state is None else initial_state
    decay = np.exp(np.broadcast_to((dt * A)[..., None], B.shape))
    y, last = recurrence(C, B, dt[..., None] * x, decay, S, reset, lengths)
    if D is not None:
        y += D[:, None] * x
    for b, n in enumerate([] if lengths is None else lengths):
        y[b, n:] = 0
    return y, last


@pytest.mark.parametrize(("name", "exact"), [("gated_linear_attention", gla), ("ssd", mamba2)])
def test_the_reference_is_the_recurrence(name, exact, rng):
    op = OPS[name]
    for sample in op.samples(rng):
        found = op.reference(np, **sample.arrays, **sample.attrs)
        for a, b in zip(found, exact(**sample.arrays, **sample.attrs), strict=True):
            assert np.allclose(a, b, rtol=1e-11, atol=1e-12), sample.label


@pytest.mark.parametrize("decay", [-np.inf, -1e30, -500.0, 0.0, 0.3])
@pytest.mark.parametrize("keys", [1, 4])
def test_any_decay(decay, keys, rng):
    """A step that forgets everything, among steps that forget little, loses no digit of what comes after it."""
    q, k, v = (rng.normal(size=(1, 150, 2, 4)) for _ in range(3))
    log_decay = -rng.uniform(0, 0.1, size=(1, 150, 2, keys))
    log_decay[:, ::13] = decay
    expected, last = gla(q, k, v, log_decay)
    reference = OPS["gated_linear_attention"].reference
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 2e-6)):
        y, S = reference(np, *(a.astype(dtype) for a in (q, k, v, log_decay)))
        assert y.dtype == dtype
        assert np.abs(y - expected).max() < tolerance * np.abs(expected).max()
        assert np.abs(S - last).max() < tolerance * np.abs(last).max()


def test_nothing_in_nothing_out(rng):
    S = rng.normal(size=(2, 3, 4, 5))
    q, v = np.zeros((2, 0, 3, 4)), np.zeros((2, 0, 3, 5))
    y, last = OPS["gated_linear_attention"].reference(np, q, q, v, np.zeros((1, 1, 3, 1)), S)
    assert y.shape == v.shape
    assert np.array_equal(last, S)
