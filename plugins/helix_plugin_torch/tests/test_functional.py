"""Functions by the names and layouts that other libraries gave them, beside loops that follow their definitions."""

import inspect
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import silu, softplus

from helix_core.errors import UsageError
from helix_core.ops import OPS
from helix_plugin_torch import functional as HF
from helix_plugin_torch import tables

# torch's compiler itself uses what torch deprecates, on its first import.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")

INF = float("inf")

# As published: https://github.com/state-spaces/mamba, https://github.com/Dao-AILab/causal-conv1d and
# https://github.com/fla-org/flash-linear-attention in August 2026. A name without a default is required.
PUBLISHED = {
    "selective_scan_fn": "u delta A B C D=None z=None delta_bias=None delta_softplus=False return_last_state=False",
    "selective_state_update": "state x dt A B C D=None z=None dt_bias=None dt_softplus=False state_batch_indices=None",
    "mamba_chunk_scan_combined": "x dt A B C chunk_size D=None z=None dt_bias=None initial_states=None seq_idx=None "
    "cu_seqlens=None dt_softplus=False dt_limit=(0.0,INF) return_final_states=False return_varlen_states=False "
    "state_dtype=None",
    "causal_conv1d_fn": "x weight bias=None seq_idx=None initial_states=None return_final_states=False "
    "final_states_out=None activation=None",
    "causal_conv1d_update": "x conv_state weight bias=None activation=None cache_seqlens=None conv_state_indices=None",
    "chunk_gated_delta_rule": "q k v g beta scale=None initial_state=None output_final_state=False "
    "use_qk_l2norm_in_kernel=False use_beta_sigmoid_in_kernel=False allow_neg_eigval=False state_v_first=False "
    "cu_seqlens=None cu_seqlens_cpu=None chunk_indices=None cp_context=None **kwargs",
    "chunk_delta_rule": "q k v beta scale=None initial_state=None output_final_state=False "
    "use_qk_l2norm_in_kernel=False cu_seqlens=None cu_seqlens_cpu=None **kwargs",
    "chunk_gla": "q k v g scale=None initial_state=None output_final_state=False state_v_first=False cu_seqlens=None "
    "cu_seqlens_cpu=None",
    "chunk_simple_gla": "q k v g=None g_gamma=None scale=None initial_state=None output_final_state=False "
    "state_v_first=False cu_seqlens=None cu_seqlens_cpu=None **kwargs",
    "chunk_retention": "q k v scale=None initial_state=None output_final_state=False cu_seqlens=None **kwargs",
    "chunk_rwkv7": "r w k v a b scale=1.0 initial_state=None output_final_state=False cu_seqlens=None "
    "cu_seqlens_cpu=None safe_gate=False chunk_size=None disable_recompute=False cp_context=None lower_bound=None "
    "**kwargs",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_signature_is_the_published_one(name):
    expected = eval(f"lambda {', '.join(PUBLISHED[name].split())}: 0", {"INF": INF})  # a list of parameters, no data
    found = inspect.signature(getattr(HF, name)).parameters.values()
    assert [(p.name, p.kind, p.default) for p in found] == [
        (p.name, p.kind, p.default) for p in inspect.signature(expected).parameters.values()
    ]


def test_all_that_is_offered_is_tested():
    assert {*PUBLISHED, *OPS} == {*HF.__all__} == {*dir(HF)}


def test_type_checkers_know_every_op():
    source = Path(HF.__file__).read_text(encoding="utf-8")
    assert sorted(re.findall(r"^    (\w+) = TypedOps\.\1$", source, re.M)) == sorted(OPS)


class Draw:
    """Float64 tensors with gradients, in the order in which they are asked for."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).requires_grad_()

    def uniform(self, *shape, low=0.1, high=1.0):
        found = low + (high - low) * torch.rand(*shape, generator=self.generator, dtype=torch.float64)
        return found.requires_grad_()


TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-5}
in_both = pytest.mark.parametrize("dtype", TOLERANCES, ids=["float64", "float32"])


def agree(function, loop, given, dtype):
    """Outputs and gradients of a function in a dtype, and of a loop in float64."""
    wanted = loop(**given)
    cast = {
        k: v.detach().to(dtype).requires_grad_() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in given.items()
    }
    found = function(**cast)
    wanted, found = (values if isinstance(values, tuple) else (values,) for values in (wanted, found))
    assert len(found) == len(wanted)
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in wanted]
    leaves = [k for k, v in given.items() if torch.is_tensor(v) and v.requires_grad]
    slopes = torch.autograd.grad(
        sum((a * w).sum() for a, w in zip(wanted, weights, strict=True)), [given[k] for k in leaves]
    )
    own = torch.autograd.grad(
        sum((a * w).sum() for a, w in zip(found, weights, strict=True)), [cast[k] for k in leaves]
    )
    tolerance = TOLERANCES[dtype]
    names = [f"output {i}" for i in range(len(found))] + [f"gradient of {k}" for k in leaves]
    for name, a, b in zip(names, [*found, *own], [*wanted, *slopes], strict=True):
        assert a.dtype == dtype, name
        assert a.shape == b.shape, name
        difference, size = (float(c.detach().abs().max()) for c in (a - b, b))
        assert difference <= tolerance * max(1.0, size), name


def scan_loop(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
    batch, dim, length = u.shape
    B, C = (
        a[:, None].expand(-1, dim, -1, -1) if a.ndim == 3 else a.repeat_interleave(dim // a.shape[1], 1) for a in (B, C)
    )
    h, ys = torch.zeros(batch, dim, A.shape[1], dtype=u.dtype), []
    for t in range(length):
        dt = delta[:, :, t] if delta_bias is None else delta[:, :, t] + delta_bias
        dt = softplus(dt) if delta_softplus else dt
        h = torch.exp(dt[..., None] * A) * h + (dt * u[:, :, t])[..., None] * B[..., t]
        ys.append((h * C[..., t]).sum(-1))
    y = torch.stack(ys, 2)
    y = y if D is None else y + D[:, None] * u
    y = y if z is None else y * silu(z)
    return (y, h) if return_last_state else y


@in_both
@pytest.mark.parametrize("groups", [None, 1, 2, 6])
def test_selective_scan_fn(dtype, groups):
    draw, batch, dim, states, length = Draw(), 2, 6, 4, 11
    shape = (batch, states, length) if groups is None else (batch, groups, states, length)
    given = {
        "u": draw.normal(batch, dim, length),
        "delta": draw.normal(batch, dim, length),
        "A": draw.uniform(dim, states, low=-3, high=-0.1),
        "B": draw.normal(*shape),
        "C": draw.normal(*shape),
        "D": draw.normal(dim),
        "z": draw.normal(batch, dim, length),
        "delta_bias": draw.normal(dim),
    }
    agree(HF.selective_scan_fn, scan_loop, {**given, "delta_softplus": True, "return_last_state": True}, dtype)
    plain = {k: given[k] for k in ("u", "A", "B", "C")} | {"delta": draw.uniform(batch, dim, length)}
    agree(HF.selective_scan_fn, scan_loop, plain, dtype)


def test_selective_scan_fn_in_half_precision():
    """As mamba-ssm calls it: A, D and the bias in float32, all else in half precision."""
    draw = Draw()
    halves = {k: draw.normal(2, 6, 9).detach().bfloat16() for k in ("u", "delta", "z")}
    halves |= {k: draw.normal(2, 4, 9).detach().bfloat16() for k in ("B", "C")}
    floats = {"A": -draw.uniform(6, 4).detach().float(), "D": draw.normal(6).detach().float()}
    for A in (floats["A"], floats["A"].bfloat16()):
        given = {**halves, **floats, "A": A}
        y, last = HF.selective_scan_fn(**given, delta_softplus=True, return_last_state=True)
        wanted, state = scan_loop(
            **{k: v.double() for k, v in given.items()}, delta_softplus=True, return_last_state=True
        )
        assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
        torch.testing.assert_close(y.double(), wanted, atol=0.02 * float(wanted.abs().max()), rtol=0)
        torch.testing.assert_close(last.double(), state, atol=1e-4, rtol=1e-4)
    wider = HF.selective_scan_fn(**{**halves, "u": halves["u"].float()}, A=floats["A"])
    assert wider.dtype == torch.float32


@in_both
@pytest.mark.parametrize("heads", [None, 2])
def test_selective_state_update(dtype, heads):
    """Steps one by one give what the scan gives."""
    draw, batch, dim, states, length = Draw(), 2, 6, 4, 5
    given = {k: draw.normal(batch, dim, length).detach().to(dtype) for k in ("x", "dt", "z")}
    B, C = (draw.normal(batch, heads or 1, states, length).detach().to(dtype) for _ in range(2))
    A = draw.uniform(dim, states, low=-3, high=-0.1).detach().to(dtype)
    D, bias = (draw.normal(dim).detach().to(dtype) for _ in range(2))
    wanted, last = HF.selective_scan_fn(
        given["x"], given["dt"], A, B, C, D, given["z"], bias, delta_softplus=True, return_last_state=True
    )
    by_head = (lambda a, axis: a) if heads is None else (lambda a, axis: a.unflatten(axis, (heads, dim // heads)))
    state, ys = by_head(torch.zeros(batch, dim, states, dtype=dtype), 1), []
    for t in range(length):
        x, dt, z = (by_head(given[k][..., t], 1) for k in ("x", "dt", "z"))
        B_t, C_t = (a[:, 0, :, t] if heads is None else a[..., t] for a in (B, C))
        y = HF.selective_state_update(
            state, x, dt, by_head(A, 0), B_t, C_t, by_head(D, 0), z, by_head(bias, 0), dt_softplus=True
        )
        assert y.shape == x.shape
        ys.append(y.reshape(batch, dim))
    torch.testing.assert_close(torch.stack(ys, 2), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.reshape(batch, dim, states), last, atol=1e-5, rtol=1e-5)


def ssd_loop(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None, **options):
    batch, length, heads, width = x.shape
    B, C = (a.repeat_interleave(heads // a.shape[2], 2) for a in (B, C))
    dt = dt if dt_bias is None else dt + dt_bias
    dt = softplus(dt) if options.get("dt_softplus") else dt
    dt = dt.clamp(*options.get("dt_limit", (0.0, INF)))
    S = torch.zeros(batch, heads, width, B.shape[3], dtype=x.dtype) if initial_states is None else initial_states
    ys, document = [], torch.zeros(batch, dtype=torch.int64)
    for t in range(length):
        if seq_idx is not None:
            S = torch.where((seq_idx[:, t] == document)[:, None, None, None], S, 0.0)
            document = seq_idx[:, t]
        moved = (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None, :]
        S = torch.exp(dt[:, t] * A)[..., None, None] * S + moved
        ys.append((S * C[:, t, :, None, :]).sum(-1))
    y = torch.stack(ys, 1)
    y = y if D is None else y + (D[:, None] if D.ndim == 1 else D) * x
    y = y if z is None else y * silu(z)
    return (y, S) if options.get("return_final_states") else y


@in_both
@pytest.mark.parametrize("skip", ["head", "channel"])
def test_mamba_chunk_scan_combined(dtype, skip):
    draw, batch, length, heads, width, groups, states = Draw(), 2, 13, 4, 3, 2, 5
    given = {
        "x": draw.normal(batch, length, heads, width),
        "dt": draw.normal(batch, length, heads),
        "A": draw.uniform(heads, low=-3, high=-0.1),
        "B": draw.normal(batch, length, groups, states),
        "C": draw.normal(batch, length, groups, states),
        "chunk_size": 64,
    }
    bare = {**given, "dt": draw.uniform(batch, length, heads)}
    agree(HF.mamba_chunk_scan_combined, ssd_loop, bare, dtype)
    full = given | {
        "D": draw.normal(heads) if skip == "head" else draw.normal(heads, width),
        "z": draw.normal(batch, length, heads, width),
        "dt_bias": draw.normal(heads),
        "initial_states": draw.normal(batch, heads, width, states),
        "dt_softplus": True,
        "dt_limit": (0.05, 2.0),
        "return_final_states": True,
    }
    agree(HF.mamba_chunk_scan_combined, ssd_loop, full, dtype)
    for seq_idx in ([[0] * 5 + [1] * 8, [0] * 13], [[3] * 4 + [7] * 9, [2] * 12 + [5]]):
        packed = full | {"seq_idx": torch.tensor(seq_idx, dtype=torch.int32)}
        agree(HF.mamba_chunk_scan_combined, ssd_loop, packed, dtype)


def conv_loop(x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False, activation=None):
    batch, dim, length = x.shape
    taps = weight.shape[1]
    before = torch.zeros(batch, dim, taps - 1, dtype=x.dtype) if initial_states is None else initial_states
    inputs, ys = torch.cat([before, x], 2), []
    for t in range(length):
        window = inputs[:, :, t : t + taps]
        if seq_idx is not None:
            same = torch.stack(
                [seq_idx[:, max(s, 0)] == seq_idx[:, t] for s in range(t - taps + 1, t + 1)], 1
            ) & torch.tensor([s >= 0 for s in range(t - taps + 1, t + 1)])
            window = window * same[:, None]
        y = (window * weight).sum(-1)
        y = y if bias is None else y + bias
        y = y if activation is None else silu(y)
        ys.append(y if seq_idx is None else torch.where(seq_idx[:, t, None] < 0, 0.0, y))
    y = torch.stack(ys, 2)
    return (y, inputs[:, :, length:]) if return_final_states else y


@in_both
@pytest.mark.parametrize("activation", [None, "silu", "swish"])
def test_causal_conv1d_fn(dtype, activation):
    draw, batch, dim, length, taps = Draw(), 2, 5, 9, 4
    given = {"x": draw.normal(batch, dim, length), "weight": draw.normal(dim, taps), "activation": activation}
    agree(HF.causal_conv1d_fn, conv_loop, given, dtype)
    given |= {"bias": draw.normal(dim)}
    states = {"initial_states": draw.normal(batch, dim, taps - 1), "return_final_states": True}
    agree(HF.causal_conv1d_fn, conv_loop, given | states, dtype)
    seq_idx = torch.tensor([[0, 0, 1, 1, 1, 2, 2, -1, -1], [4, 4, 4, 4, 4, 4, 4, 4, -1]], dtype=torch.int32)
    agree(HF.causal_conv1d_fn, conv_loop, given | {"seq_idx": seq_idx}, dtype)


def test_final_states_are_written_where_they_are_wanted():
    x, weight, out = torch.randn(2, 5, 2), torch.randn(5, 4), torch.empty(2, 5, 3)
    _, found = HF.causal_conv1d_fn(x, weight, return_final_states=True, final_states_out=out)
    assert found is out
    assert torch.equal(out, torch.cat([torch.zeros(2, 5, 1), x], 2))
    with pytest.raises(UsageError, match="final_states_out"):
        HF.causal_conv1d_fn(x, weight, final_states_out=out)


@pytest.mark.parametrize("kept", [3, 5])
def test_causal_conv1d_update(kept):
    x, weight, bias = torch.randn(2, 5, 9), torch.randn(5, 4), torch.randn(5)
    wanted = HF.causal_conv1d_fn(x, weight, bias, activation="silu")
    state = torch.zeros(2, 5, kept)
    first = HF.causal_conv1d_update(x[..., :4], state, weight, bias, "silu")
    rest = [HF.causal_conv1d_update(x[..., t], state, weight, bias, "silu") for t in range(4, 9)]
    torch.testing.assert_close(torch.cat([first, torch.stack(rest, 2)], 2), wanted)
    assert torch.equal(state, x[..., 9 - kept :])


def linear_loop(step, arrays, values, state, scale, cu_seqlens):
    """o and states of `step(S, *at) -> S`, whose first array is the query; sequences from and to `cu_seqlens`."""
    v = arrays[values]
    batch, length, heads, width = v.shape
    arrays = [a.repeat_interleave(heads // a.shape[2], 2) if a.shape[2] != heads else a for a in arrays]
    rows = [(n, 0, length) for n in range(batch)] if cu_seqlens is None else [
        (0, start, end) for start, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True)
    ]  # fmt: skip
    o, last = [], []
    for n, (row, start, end) in enumerate(rows):
        S = torch.zeros(heads, arrays[0].shape[3], width, dtype=v.dtype) if state is None else state[n]
        ys = [v.new_zeros(0, heads, width)]
        for t in range(start, end):
            S = step(S, *(a[row, t] for a in arrays))
            ys.append(scale * torch.einsum("hkv,hk->hv", S, arrays[0][row, t])[None])
        o.append(torch.cat(ys))
        last.append(S)
    o = torch.stack(o) if cu_seqlens is None else torch.cat(o)[None]
    return o, torch.stack(last)


def outer(k, v):
    return k[..., None] * v[..., None, :]


def delta_step(S, q, k, v, g, beta):
    S = g.exp()[:, None, None] * S
    return S + outer(k, beta[:, None] * (v - torch.einsum("hkv,hk->hv", S, k)))


def gla_step(S, q, k, v, g):
    return g.exp()[..., None] * S + outer(k, v)


def rwkv7_step(S, r, w, k, v, a, b):
    return w.exp()[..., None] * S + outer(b, torch.einsum("hkv,hk->hv", S, a)) + outer(k, v)


SEQUENCES = torch.tensor([0, 3, 3, 9, 10])
kinds_of_rows = pytest.mark.parametrize("rows", ["rows", "packed", "packed states"])


def of_rows(draw, rows, heads, K, V):
    """Batch, and the arguments that say what rows are."""
    if rows == "rows":
        return 2, {"initial_state": draw.normal(2, heads, K, V), "output_final_state": True}
    states = {"initial_state": draw.normal(4, heads, K, V), "output_final_state": True} if "states" in rows else {}
    return 1, {"cu_seqlens": SEQUENCES, **states}


def fla_agrees(function, step, values, arrays, more, dtype, *, scale=None, seen=lambda *arrays: arrays, **options):
    """A function of flash-linear-attention beside a loop over `seen(*arrays)`."""

    def own(**given):
        o, last = function(**given, **options)
        assert (last is not None) == given.get("output_final_state", False)
        return o if last is None else (o, last)

    def loop(**given):
        tensors = seen(*(given[k] for k in arrays))
        factor = scale if scale is not None else tensors[0].shape[3] ** -0.5
        o, last = linear_loop(step, tensors, values, given.get("initial_state"), factor, given.get("cu_seqlens"))
        return (o, last) if given.get("output_final_state") else o

    agree(own, loop, {**arrays, **more}, dtype)


@in_both
@kinds_of_rows
def test_chunk_gated_delta_rule(dtype, rows):
    draw, H, HV, K, V = Draw(), 2, 4, 5, 3
    B, more = of_rows(draw, rows, HV, K, V)
    arrays = {
        "q": draw.normal(B, 10, H, K),
        "k": draw.normal(B, 10, H, K),
        "v": draw.normal(B, 10, HV, V),
        "g": draw.uniform(B, 10, HV, low=-1, high=0),
        "beta": draw.normal(B, 10, HV),
    }

    def unit(x):
        return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()

    fla_agrees(
        HF.chunk_gated_delta_rule,
        delta_step,
        2,
        arrays,
        more,
        dtype,
        seen=lambda q, k, v, g, beta: (unit(q), unit(k), v, g, 2 * beta.sigmoid()),
        use_qk_l2norm_in_kernel=True,
        use_beta_sigmoid_in_kernel=True,
        allow_neg_eigval=True,
        chunk_size=32,
    )


@in_both
def test_chunk_gated_delta_rule_makes_its_own_gate(dtype):
    draw, H, K, V = Draw(), 2, 5, 3
    arrays = {
        "q": draw.normal(2, 7, H, K),
        "k": draw.uniform(2, 7, H, K, low=-0.4, high=0.4),
        "v": draw.normal(2, 7, H, V),
        "g": draw.normal(2, 7, H),
        "beta": draw.uniform(2, 7, H),
        "A_log": draw.normal(H),
        "dt_bias": draw.normal(H),
    }
    fla_agrees(
        lambda **given: HF.chunk_gated_delta_rule(**given, scale=0.3, use_gate_in_kernel=True),
        delta_step,
        2,
        arrays,
        {},
        dtype,
        scale=0.3,
        seen=lambda q, k, v, g, beta, A, bias: (q, k, v, -A.exp() * softplus(g + bias), beta),
    )


@in_both
@kinds_of_rows
def test_chunk_delta_rule(dtype, rows):
    draw, H, K, V = Draw(), 2, 5, 3
    B, more = of_rows(draw, rows, H, K, V)
    arrays = {
        "q": draw.normal(B, 10, H, K),
        "k": draw.uniform(B, 10, H, K, low=-0.4, high=0.4),
        "v": draw.normal(B, 10, H, V),
        "beta": draw.uniform(B, 10, H),
    }
    fla_agrees(
        HF.chunk_delta_rule,
        delta_step,
        2,
        arrays,
        more,
        dtype,
        seen=lambda q, k, v, beta: (q, k, v, torch.zeros_like(beta), beta),
    )


@in_both
@kinds_of_rows
def test_chunk_gla(dtype, rows):
    draw, H, K, V = Draw(), 2, 5, 3
    B, more = of_rows(draw, rows, H, K, V)
    arrays = {k: draw.normal(B, 10, H, K) for k in "qk"} | {"v": draw.normal(B, 10, H, V)}
    arrays |= {"g": draw.uniform(B, 10, H, K, low=-1, high=0)}
    fla_agrees(HF.chunk_gla, gla_step, 2, arrays, more, dtype)


@in_both
@kinds_of_rows
@pytest.mark.parametrize("decay", ["g", "g_gamma", None])
def test_chunk_simple_gla(dtype, rows, decay):
    draw, H, K, V = Draw(), 2, 5, 3
    B, more = of_rows(draw, rows, H, K, V)
    arrays = {k: draw.normal(B, 10, H, K) for k in "qk"} | {"v": draw.normal(B, 10, H, V)}
    if decay is not None:
        arrays |= {decay: draw.uniform(*((B, 10, H) if decay == "g" else (H,)), low=-1, high=0)}

    def seen(q, k, v, g=None):
        g = v.new_zeros(H) if g is None else g
        return q, k, v, g.expand(B, 10, H)[..., None]

    fla_agrees(HF.chunk_simple_gla, gla_step, 2, arrays, more, dtype, seen=seen)


@in_both
@kinds_of_rows
def test_chunk_retention(dtype, rows):
    draw, H, K, V = Draw(), 3, 5, 3
    B, more = of_rows(draw, rows, H, K, V)
    arrays = {k: draw.normal(B, 10, H, K) for k in "qk"} | {"v": draw.normal(B, 10, H, V)}
    gamma = torch.tensor([math.log(1 - 2.0 ** (-5 - h)) for h in range(H)], dtype=torch.float64)
    fla_agrees(
        HF.chunk_retention,
        gla_step,
        2,
        arrays,
        more,
        dtype,
        seen=lambda q, k, v: (q, k, v, gamma.expand(B, 10, H)[..., None]),
    )


@in_both
@kinds_of_rows
def test_chunk_rwkv7(dtype, rows):
    draw, H, K, V = Draw(), 2, 5, 3
    B, more = of_rows(draw, rows, H, K, V)
    arrays = {
        "r": draw.normal(B, 10, H, K),
        "w": draw.uniform(B, 10, H, K, low=-1, high=0),
        "k": draw.normal(B, 10, H, K),
        "v": draw.normal(B, 10, H, V),
        "a": draw.uniform(B, 10, H, K, low=-0.4, high=0.4),
        "b": draw.uniform(B, 10, H, K, low=-0.4, high=0.4),
    }
    fla_agrees(HF.chunk_rwkv7, rwkv7_step, 3, arrays, more, dtype, scale=1.0)


def test_states_with_values_first():
    q, k, v = (torch.randn(2, 7, 3, size) for size in (4, 4, 5))
    g, state = -torch.rand(2, 7, 3, 4), torch.randn(2, 3, 4, 5)
    o, last = HF.chunk_gla(q, k, v, g, initial_state=state, output_final_state=True)
    turned, turned_last = HF.chunk_gla(
        q, k, v, g, initial_state=state.mT.contiguous(), output_final_state=True, state_v_first=True
    )
    assert torch.equal(turned, o)
    assert torch.equal(turned_last, last.mT)


def test_gates_stay_in_float32_beside_half_precision():
    q, k, v = (torch.randn(1, 64, 2, 4).bfloat16() for _ in range(3))
    g = torch.full((1, 64, 2, 4), -0.00391)  # in bfloat16 it is 0.06 % more
    _, last = HF.chunk_gla(q, k, v, g, output_final_state=True)
    _, wanted = HF.chunk_gla(q.double(), k.double(), v.double(), g.double(), output_final_state=True)
    assert last.dtype == torch.float32
    torch.testing.assert_close(last.double(), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_its_own_signature_and_values(name):
    op, function = OPS[name], getattr(HF, name)
    wanted = [*inspect.signature(op.reference).parameters.values()][1:]
    found = inspect.signature(function).parameters.values()
    assert [(p.name, p.kind, p.default) for p in found] == [(p.name, p.kind, p.default) for p in wanted]
    assert function.__doc__ == op.reference.__doc__
    assert pickle.loads(pickle.dumps(function)) is function
    sample = next(iter(op.samples(np.random.default_rng(0))))
    given = {k: torch.from_numpy(np.asarray(v)) for k, v in sample.arrays.items()}
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            result = function(**given, **sample.attrs)
        expected = op.reference(np, **sample.arrays, **sample.attrs)
        pairs = zip(result, expected, strict=True) if isinstance(expected, tuple) else [(result, expected)]
        for a, b in pairs:
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-9, atol=1e-9)


def test_an_op_is_bound_once_for_device_dtype_and_gradient_mode(monkeypatch):
    """Whatever was bound before: once for each of three kinds at most."""
    bound = []
    backend = tables.backend_of("cpu")
    monkeypatch.setattr(
        backend, "bind", lambda **facts: bound.append(facts) or type(backend).bind(backend, **facts), raising=False
    )
    x, weight = torch.randn(3, 8), torch.randn(4, 8, requires_grad=True)
    for _ in range(2):
        assert HF.linear(x, weight).requires_grad
        with torch.no_grad():
            assert not HF.linear(x, weight).requires_grad
        with torch.inference_mode():
            HF.linear(x.double(), weight.double())
    kinds = [(facts["dtype"], facts["mode"]) for facts in bound]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) <= {("float32", "train"), ("float32", "infer"), ("float64", "infer")}


def test_it_compiles_whole():
    u, delta = torch.randn(2, 6, 9, requires_grad=True), torch.rand(2, 6, 9)
    A, B, C = -torch.rand(6, 4), torch.randn(2, 4, 9), torch.randn(2, 4, 9)
    compiled = torch.compile(HF.selective_scan_fn, fullgraph=True, backend="aot_eager")
    y = HF.selective_scan_fn(u, delta, A, B, C, delta_softplus=True)
    found = compiled(u, delta, A, B, C, delta_softplus=True)
    torch.testing.assert_close(found, y)
    (wanted,) = torch.autograd.grad(y.sum(), u)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), u)[0], wanted)


X = torch.zeros(2, 6, 9)
N = torch.zeros(2, 4, 9)
Q = torch.zeros(2, 9, 2, 4)
G = torch.zeros(2, 9, 2)
S4 = torch.zeros(2, 9, 3, 4)
REFUSED = {
    "complex A": (HF.selective_scan_fn, [X, X, torch.zeros(6, 4, dtype=torch.complex64), N, N], {}, "real"),
    "constant B": (HF.selective_scan_fn, [X, X, X[0, :, :4], torch.zeros(6, 4), N], {}, "every step"),
    "other length": (HF.selective_scan_fn, [X, X[..., :5], X[0, :, :4], N, N], {}, "delta is .* length = 9"),
    "other layout": (HF.selective_scan_fn, [X.mT, X.mT, X[0, :, :4], N, N], {}, "dim = 9"),
    "odd groups": (HF.selective_scan_fn, [X, X, X[0, :, :4], torch.zeros(2, 4, 4, 9), N], {}, "4 groups of B"),
    "two dtypes": (HF.selective_scan_fn, [X, X, X[0, :, :4].double(), N, N], {}, "float64"),
    "state indices": (
        HF.selective_state_update,
        [X, X[..., 0], X[..., 0], X[0], N.mT[..., 0], N.mT[..., 0]],
        {"state_batch_indices": torch.zeros(2)},
        "state_batch_indices is not served",
    ),
    "varlen states": (
        HF.mamba_chunk_scan_combined,
        [S4, S4[..., 0], S4[0, 0, :, 0], S4, S4, 64],
        {"return_varlen_states": True},
        "return_varlen_states is not served",
    ),
    "state dtype": (
        HF.mamba_chunk_scan_combined,
        [S4, S4[..., 0], S4[0, 0, :, 0], S4, S4, 64],
        {"state_dtype": torch.bfloat16},
        "bfloat16",
    ),
    "sharing heads": (
        HF.mamba_chunk_scan_combined,
        [S4, S4[..., 0], S4[0, 0, :, 0], S4[:, :, :2], S4[:, :, :2], 64],
        {},
        "3 heads cannot share 2 groups",
    ),
    "activation": (HF.causal_conv1d_fn, [X, X[0, :, :4]], {"activation": "gelu"}, "'gelu'"),
    "seq_idx and states": (
        HF.causal_conv1d_fn,
        [X, X[0, :, :4]],
        {"seq_idx": torch.zeros(2, 9, dtype=torch.int32), "return_final_states": True},
        "seq_idx",
    ),
    "circular state": (
        HF.causal_conv1d_update,
        [X[..., 0], X, X[0, :, :4]],
        {"cache_seqlens": torch.zeros(2)},
        "cache_seqlens is not served",
    ),
    "short state": (HF.causal_conv1d_update, [X[..., 0], X[..., :2], X[0, :, :4]], {}, "2 inputs"),
    "context parallel": (HF.chunk_gated_delta_rule, [Q, Q, Q, G, G], {"cp_context": object()}, "cp_context"),
    "gate without A": (HF.chunk_gated_delta_rule, [Q, Q, Q, G, G], {"use_gate_in_kernel": True}, "A_log"),
    "A without gate": (HF.chunk_gated_delta_rule, [Q, Q, Q, G, G], {"A_log": G[0, 0]}, "use_gate_in_kernel"),
    "eigenvalues": (HF.chunk_gated_delta_rule, [Q, Q, Q, G, G], {"allow_neg_eigval": True}, "use_beta_sigmoid"),
    "two decays": (HF.chunk_simple_gla, [Q, Q, Q, G, G[0, 0]], {}, "not both"),
    "many rows cut": (HF.chunk_gla, [Q, Q, Q, Q], {"cu_seqlens": torch.tensor([0, 9])}, "single row"),
    "wrong cuts": (HF.chunk_gla, [Q[:1]] * 4, {"cu_seqlens": torch.tensor([0, 5])}, "rise from 0 to the length 9"),
    "cuts without": (HF.chunk_gla, [Q] * 4, {"cu_seqlens_cpu": torch.tensor([0, 9])}, "cu_seqlens_cpu"),
    "wrong state": (HF.chunk_gla, [Q] * 4, {"initial_state": torch.zeros(2, 2, 4, 5)}, "initial_state"),
    "an array": (HF.silu, [[1.0, 2.0]], {}, "torch tensors, and got a list"),
    "whole numbers": (HF.silu, [torch.arange(3)], {}, "no floating-point"),
    "halves": (HF.linear, [X.bfloat16(), torch.zeros(3, 9).half()], {}, "float16"),
    "two devices": (HF.linear, [X, torch.zeros(3, 9, device="meta")], {}, "meta"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_served_is_refused(case):
    function, arrays, options, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        function(*arrays, **options)


@pytest.mark.parametrize(
    ("function", "arrays"),
    [
        (HF.selective_scan_fn, [X, X, X[0, :, :4], N, N]),
        (HF.selective_scan, [X.mT, X.mT, X[0, :, :4], N.mT, N.mT]),
        (HF.chunk_gated_delta_rule, [Q, Q, Q, G, G]),
        (HF.chunk_simple_gla, [Q, Q, Q]),
        (HF.chunk_rwkv7, [Q] * 6),
    ],
)
def test_an_unknown_keyword_is_refused(function, arrays):
    function(*arrays)
    with pytest.raises(TypeError, match="delta_softmax"):
        function(*arrays, delta_softmax=True)
