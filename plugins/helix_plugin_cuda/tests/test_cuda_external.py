"""Kernels of other packages: seen in the trail, refused with a reason, and called with the axes they have.

The packages here are stand-ins with the real signatures, which compute by the ops' references.
"""

import array_api_compat.torch as xp
import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.ops import OPS
from helix_core.plugin_system import Registry, use_registry
from helix_core.settings import Settings
from helix_core.testing.dists import on_path, write_dist
from helix_core.testing.levels.ops import check_values

PEERS = {
    "selective_scan": "cuda/mamba_ssm_selective_scan",
    "ssd": "cuda/mamba_ssm_ssd",
    "causal_conv1d": "cuda/dao_causal_conv1d",
    "gated_linear_attention": "cuda/fla_gated_linear_attention",
}

MAMBA = """
    import stand_in
    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
                          return_last_state=False):
        assert u.shape[1] == A.shape[0] and A.dtype == stand_in.torch.float32 and return_last_state
        u, delta, B, C, z = (None if a is None else a.transpose(1, 2) for a in (u, delta, B, C, z))
        y, last = stand_in.run("selective_scan", u, delta, A, B, C, D, z, delta_bias, delta_softplus=delta_softplus)
        return y.transpose(1, 2), last
"""
SSD = """
    import stand_in
    def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None,
                                  seq_idx=None, cu_seqlens=None, dt_softplus=False, dt_limit=(0.0, float("inf")),
                                  return_final_states=False):
        assert return_final_states
        initial = None if initial_states is None else initial_states.transpose(2, 3)
        y, last = stand_in.run("ssd", x, dt, A, B, C, D, dt_bias, initial, dt_softplus=dt_softplus,
                               dt_min=dt_limit[0], dt_max=dt_limit[1])
        return y, last.transpose(2, 3)
"""
CONV = """
    import stand_in
    def causal_conv1d_fn(x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False,
                         final_states_out=None, activation=None):
        assert 2 <= weight.shape[1] <= 4 and x.shape[1] == weight.shape[0]
        initial = None if initial_states is None else initial_states.transpose(1, 2)
        y, _ = stand_in.run("causal_conv1d", x.transpose(1, 2), weight, bias, initial, activation=activation or "none")
        return y.transpose(1, 2)
"""
GLA = """
    import stand_in
    def chunk_gla(q, k, v, g, scale=None, initial_state=None, output_final_state=False):
        assert output_final_state
        return stand_in.run("gated_linear_attention", q, k, v, g, initial_state, scale=scale)
    def chunk_simple_gla(q, k, v, g, scale=None, initial_state=None, output_final_state=False):
        return chunk_gla(q, k, v, g[..., None], scale, initial_state, output_final_state)
"""
STAND_IN = """
    import torch
    import array_api_compat.torch as xp
    from helix_core.ops import OPS
    calls = []
    def run(op, *arrays, **attrs):
        calls.append(op)
        return OPS[op].reference(xp, *arrays, **attrs)
"""


@pytest.fixture
def installed(tmp_path):
    """The stand-ins installed, and their record of calls."""
    package = {"mamba_ssm/__init__.py": "", "mamba_ssm/ops/__init__.py": "", "mamba_ssm/ops/triton/__init__.py": ""}
    scan = {"mamba_ssm/ops/selective_scan_interface.py": MAMBA, "mamba_ssm/ops/triton/ssd_combined.py": SSD}
    write_dist(tmp_path, "mamba-ssm", "2.2.4", modules={**package, **scan})
    write_dist(tmp_path, "causal-conv1d", "1.5.0", modules={"causal_conv1d.py": CONV, "stand_in.py": STAND_IN})
    fla = {"fla/__init__.py": "", "fla/ops/__init__.py": "", "fla/ops/gla.py": GLA, "fla/ops/simple_gla.py": GLA}
    write_dist(tmp_path, "flash-linear-attention", "0.4.0", modules=fla)
    with on_path(tmp_path), use_registry(Registry(Settings())):
        import stand_in

        yield stand_in.calls


@pytest.mark.parametrize("op", PEERS)
def test_what_is_not_installed_is_named_with_what_it_needs(op):
    trail = create("backend", "cuda").bind(pins={op: "core/reference"}).trail
    assert trail[op].chosen == "core/reference"
    with use_registry(Registry(Settings())):
        from helix_core.errors import ComponentUnavailable

        with pytest.raises(ComponentUnavailable, match="not installed"):
            create("backend", "cuda").bind(pins={op: PEERS[op]})


@pytest.mark.parametrize("op", PEERS)
def test_installed_peers_are_candidates_and_equal_the_oracle(op, installed, rng):
    backend = create("backend", "cuda")
    assert backend.bind(mode="infer").trail[op].chosen == f"cuda/{op}"
    F = backend.bind(mode="infer", pins={op: PEERS[op]})
    assert F.trail[op].chosen == PEERS[op]
    for sample in list(OPS[op].samples(rng))[:2]:
        check_values(backend, F, OPS[op], sample, "float32")
    assert op in installed


def test_the_delta_rule_goes_to_its_package_in_half_precision(installed, rng, tmp_path):
    rule = """
        import stand_in
        def chunk_gated_delta_rule(q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False):
            assert q.dtype == k.dtype == v.dtype != stand_in.torch.float32 and q.shape[2] == v.shape[2]
            arrays = (None if a is None else a.float() for a in (q, k, v, g, beta, initial_state))
            y, last = stand_in.run("gated_delta_rule", *arrays, scale=scale)
            return y.to(q.dtype), last
    """
    write_dist(tmp_path, "flash-linear-attention", "0.4.1", modules={"fla/ops/gated_delta_rule.py": rule})
    backend = create("backend", "cuda")
    F = backend.bind(dtype="bfloat16", mode="infer", pins={"gated_delta_rule": "cuda/fla_gated_delta_rule"})
    sample = list(OPS["gated_delta_rule"].samples(rng))[7]
    check_values(backend, F, OPS["gated_delta_rule"], sample, "bfloat16")
    assert "gated_delta_rule" in installed


def test_rwkv7_goes_to_its_package_in_half_precision(installed, rng, tmp_path):
    rule = """
        import stand_in
        def chunk_rwkv7(r, w, k, v, a, b, scale=1.0, initial_state=None, output_final_state=False):
            assert r.dtype == k.dtype == v.dtype != stand_in.torch.float32 and scale == 1.0 and output_final_state
            arrays = (None if x is None else x.float() for x in (r, w, k, v, a, b, initial_state))
            y, last = stand_in.run("rwkv7", *arrays)
            return y.to(r.dtype), last
    """
    write_dist(tmp_path, "flash-linear-attention", "0.4.1", modules={"fla/ops/rwkv7.py": rule})
    backend = create("backend", "cuda")
    F = backend.bind(dtype="bfloat16", mode="infer", pins={"rwkv7": "cuda/fla_rwkv7"})
    plain, ragged = list(OPS["rwkv7"].samples(rng))[:2]
    check_values(backend, F, OPS["rwkv7"], ragged, "bfloat16")
    assert "rwkv7" not in installed
    check_values(backend, F, OPS["rwkv7"], plain, "bfloat16")
    assert "rwkv7" in installed


def test_resets_go_to_our_kernel_and_gradients_flow(installed, rng):
    backend = create("backend", "cuda")
    F = backend.bind(mode="train", pins={"causal_conv1d": PEERS["causal_conv1d"]})
    x = torch.from_numpy(rng.normal(size=(1, 6, 3))).float().requires_grad_()
    w = torch.from_numpy(rng.normal(size=(3, 4))).float()
    reset = torch.from_numpy(np.array([[False, False, True, False, False, False]]))
    y, _ = F.causal_conv1d(x, w, None, None, reset)
    assert "causal_conv1d" not in installed
    expected, _ = OPS["causal_conv1d"].reference(xp, x, w, None, None, reset)
    assert torch.allclose(y, expected, atol=1e-6)
    F.causal_conv1d(x, w)[0].sum().backward()
    assert "causal_conv1d" in installed
    assert x.grad is not None
