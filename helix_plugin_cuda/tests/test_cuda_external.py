"""Kernels of other packages: seen in the trail, refused with a reason, and called with the axes they have.

The packages here are stand-ins that compute by the ops' references, with the signatures and the refusals of mamba-ssm
2.3.2, causal-conv1d 1.6.1 and flash-linear-attention 0.5.2.
"""

import array_api_compat.torch as xp
import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.errors import ComponentUnavailable, UsageError
from helix_core.ops import OPS, Sample
from helix_core.plugin_system import Registry, use_registry
from helix_core.plugin_system.settings import Settings
from helix_testing.dists import on_path, write_dist
from helix_testing.levels.ops import check_values

PEERS = {
    "selective_scan": "cuda/mamba_ssm_selective_scan",
    "ssd": "cuda/mamba_ssm_ssd",
    "causal_conv1d": "cuda/dao_causal_conv1d",
    "gated_linear_attention": "cuda/fla_gated_linear_attention",
    "gated_delta_rule": "cuda/fla_gated_delta_rule",
    "rwkv7": "cuda/fla_rwkv7",
}
ONLY_HALF = ("gated_delta_rule", "rwkv7")

MAMBA = """
    import stand_in
    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
                          return_last_state=False):
        assert u.shape[1] == A.shape[0] and A.shape[1] <= 256 and return_last_state
        assert all(a is None or a.dtype == stand_in.torch.float32 for a in (A, D, delta_bias))
        assert all(a is None or a.dtype == u.dtype and a.stride(2) in (1, a.shape[1]) for a in (delta, B, C, z))
        u, delta, B, C, z = (None if a is None else a.transpose(1, 2) for a in (u, delta, B, C, z))
        y, last = stand_in.run("selective_scan", u, delta, A, B, C, D, z, delta_bias, delta_softplus=delta_softplus)
        return y.transpose(1, 2), last
"""
SSD = """
    import stand_in
    def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None,
                                  seq_idx=None, cu_seqlens=None, dt_softplus=False, dt_limit=(0.0, float("inf")),
                                  return_final_states=False, return_varlen_states=False, state_dtype=None):
        assert return_final_states and B.shape == C.shape and A.shape == dt.shape[2:]
        assert initial_states is None or initial_states.shape[2:] == (x.shape[3], B.shape[3])
        initial = None if initial_states is None else initial_states.transpose(2, 3)
        y, last = stand_in.run("ssd", x, dt, A, B, C, D, dt_bias, initial, dt_softplus=dt_softplus,
                               dt_min=dt_limit[0], dt_max=dt_limit[1])
        return y, last.transpose(2, 3)
"""
CONV = """
    import stand_in
    def causal_conv1d_fn(x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False,
                         final_states_out=None, activation=None):
        assert 2 <= weight.shape[1] <= 4 and x.shape[1] == weight.shape[0] and activation in (None, "silu", "swish")
        assert bias is None or bias.dtype == weight.dtype
        channels_last = x.stride(1) == 1 and x.stride(2) > 1
        assert channels_last or x.stride(2) == 1
        assert not channels_last or x.shape[1] % 8 == x.stride(0) % 8 == x.stride(2) % 8 == 0
        if initial_states is not None:
            assert channels_last and initial_states.stride(1) == 1 and initial_states.dtype == x.dtype
            assert initial_states.shape == (*x.shape[:2], weight.shape[1] - 1)
        initial = None if initial_states is None else initial_states.transpose(1, 2)
        y, _ = stand_in.run("causal_conv1d", x.transpose(1, 2), weight, bias, initial, activation=activation or "none")
        return y.transpose(1, 2)
"""
FLA = """
    import stand_in
    def chunk_gla(q, k, v, g, scale=None, initial_state=None, output_final_state=False, state_v_first=False,
                  cu_seqlens=None, cu_seqlens_cpu=None):
        assert output_final_state and q.shape == k.shape == g.shape and v.shape[:3] == q.shape[:3]
        assert initial_state is None or initial_state.dtype == stand_in.torch.float32
        return stand_in.run("gated_linear_attention", q, k, v, g, initial_state, scale=scale)
    def chunk_simple_gla(q, k, v, g=None, g_gamma=None, scale=None, initial_state=None, output_final_state=False,
                         state_v_first=False, cu_seqlens=None, cu_seqlens_cpu=None, **kwargs):
        assert output_final_state and g.shape == q.shape[:3]
        return stand_in.run("gated_linear_attention", q, k, v, g[..., None], initial_state, scale=scale)
    def chunk_gated_delta_rule(q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False,
                               use_qk_l2norm_in_kernel=False, use_beta_sigmoid_in_kernel=False,
                               allow_neg_eigval=False, state_v_first=False, cu_seqlens=None, cu_seqlens_cpu=None,
                               chunk_indices=None, cp_context=None, **kwargs):
        assert q.shape[2] == k.shape[2] == v.shape[2] and g.shape == beta.shape == v.shape[:3] and output_final_state
        assert q.dtype == k.dtype == v.dtype != stand_in.torch.float32  # of 0.3
        return stand_in.run("gated_delta_rule", q, k, v, g, beta, initial_state, scale=scale)
    def chunk_rwkv7(r, w, k, v, a, b, scale=1.0, initial_state=None, output_final_state=False, cu_seqlens=None,
                    cu_seqlens_cpu=None, safe_gate=False, chunk_size=None, disable_recompute=False, cp_context=None,
                    lower_bound=None, **kwargs):
        assert r.dtype == k.dtype == v.dtype != stand_in.torch.float32 and scale == 1.0 and output_final_state
        return stand_in.run("rwkv7", r, w, k, v, a, b, initial_state)
"""
STAND_IN = """
    import torch
    import array_api_compat.torch as xp
    from helix_core.ops import OPS, Sample
    calls = []
    def run(op, *arrays, **attrs):
        calls.append(op)
        y, last = OPS[op].reference(xp, *(a.float() if torch.is_tensor(a) else a for a in arrays), **attrs)
        return y.to(arrays[0].dtype), last
"""


@pytest.fixture
def installed(tmp_path):
    """The stand-ins installed, and their record of calls."""
    package = {"mamba_ssm/__init__.py": "", "mamba_ssm/ops/__init__.py": "", "mamba_ssm/ops/triton/__init__.py": ""}
    scan = {"mamba_ssm/ops/selective_scan_interface.py": MAMBA, "mamba_ssm/ops/triton/ssd_combined.py": SSD}
    write_dist(tmp_path, "mamba-ssm", "2.3.2", modules={**package, **scan})
    write_dist(tmp_path, "causal-conv1d", "1.6.1", modules={"causal_conv1d.py": CONV, "stand_in.py": STAND_IN})
    ops = ("gla", "simple_gla", "gated_delta_rule", "rwkv7")
    fla = {"fla/__init__.py": "", "fla/ops/__init__.py": "", **{f"fla/ops/{name}.py": FLA for name in ops}}
    write_dist(tmp_path, "flash-linear-attention", "0.5.2", modules=fla)
    with on_path(tmp_path), use_registry(Registry(Settings())):
        import stand_in

        yield stand_in.calls


@pytest.mark.parametrize("op", PEERS)
def test_what_is_not_installed_is_named_with_what_it_needs(op):
    with use_registry(Registry(Settings())), pytest.raises(ComponentUnavailable, match="not installed"):
        create("backend", "cuda").bind(dtype="bfloat16", pins={op: PEERS[op]})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("op", PEERS)
def test_installed_peers_are_candidates_and_equal_the_oracle(op, dtype, installed, rng):
    if dtype == "float32" and op in ONLY_HALF:
        pytest.skip("its package computes in half precision")
    backend = create("backend", "cuda")
    assert backend.bind(dtype=dtype, mode="infer").trail[op].chosen == f"cuda/{op}"
    F = backend.bind(dtype=dtype, mode="infer", pins={op: PEERS[op]})
    assert F.trail[op].chosen == PEERS[op]
    unknown = {"reset", "lengths"} | ({"initial_state"} if op == "selective_scan" else set())
    for sample in OPS[op].samples(rng):
        arrays = {name: a for name, a in sample.arrays.items() if name not in unknown}
        check_values(backend, F, OPS[op], Sample(arrays, sample.attrs, sample.label), dtype)
    assert op in installed


@pytest.mark.parametrize("op", PEERS)
def test_ragged_rows_go_to_our_kernel(op, installed, rng):
    backend = create("backend", "cuda")
    F = backend.bind(dtype="bfloat16", mode="infer", pins={op: PEERS[op]})
    ragged = next(s for s in OPS[op].samples(rng) if "lengths" in s.arrays)
    check_values(backend, F, OPS[op], ragged, "bfloat16")
    assert op not in installed


@pytest.mark.parametrize("shape", [(2, 9, 5), (2, 9, 1), (2, 9, 16)])
def test_the_convolution_of_a_part_of_a_wider_row(shape, installed, rng):
    """Strides that are no multiples of eight, with a state: the package refuses them as they are."""
    B, L, D = shape
    backend = create("backend", "cuda")
    F = backend.bind(mode="infer", pins={"causal_conv1d": PEERS["causal_conv1d"]})
    x = torch.from_numpy(rng.normal(size=(B, L, D + 3))).float()[..., :D]
    w, state = (torch.from_numpy(rng.normal(size=s)).float() for s in ((D, 4), (D, B, 3)))
    state = state.permute(1, 2, 0)
    y, _ = F.causal_conv1d(x, w, None, state)
    expected, _ = OPS["causal_conv1d"].reference(xp, x, w, None, state)
    assert torch.allclose(y, expected, atol=1e-6)
    assert ("causal_conv1d" in installed) == (D % 8 == 0)


def test_a_gradient_that_mamba_ssm_would_drop_is_refused(installed, rng):
    F = create("backend", "cuda").bind(mode="train", pins={"selective_scan": PEERS["selective_scan"]})
    sample = next(iter(OPS["selective_scan"].samples(rng)))
    arrays = [sample.arrays.get(name) for name in OPS["selective_scan"].arrays]
    leaves = [None if a is None else torch.from_numpy(np.asarray(a)).float().requires_grad_() for a in arrays]
    y, last = F.selective_scan(*leaves, **sample.attrs)
    with pytest.raises(UsageError, match="no gradient of its last state"):
        (y.sum() + last.sum()).backward()
    (found,) = torch.autograd.grad(F.selective_scan(*leaves, **sample.attrs)[0].sum(), leaves[0])
    y, _ = OPS["selective_scan"].reference(xp, *leaves, **sample.attrs)
    (expected,) = torch.autograd.grad(y.sum(), leaves[0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_resets_go_to_our_kernel_and_gradients_flow(installed, rng):
    backend = create("backend", "cuda")
    F = backend.bind(mode="train", pins={"causal_conv1d": PEERS["causal_conv1d"]})
    x = torch.from_numpy(rng.normal(size=(1, 6, 8))).float().requires_grad_()
    w = torch.from_numpy(rng.normal(size=(8, 4))).float()
    reset = torch.from_numpy(np.array([[False, False, True, False, False, False]]))
    y, _ = F.causal_conv1d(x, w, None, None, reset)
    assert "causal_conv1d" not in installed
    expected, _ = OPS["causal_conv1d"].reference(xp, x, w, None, None, reset)
    assert torch.allclose(y, expected, atol=1e-6)
    F.causal_conv1d(x, w)[0].sum().backward()
    assert "causal_conv1d" in installed
    # Each position is read by itself and the three after it, as far as there are any.
    taps = torch.stack([w[:, max(0, t - 2) :].sum(1) for t in range(6)])
    torch.testing.assert_close(x.grad[0], taps, atol=1e-5, rtol=1e-5)
