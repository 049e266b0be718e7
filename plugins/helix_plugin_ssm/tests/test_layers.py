"""The layer kit on every layer of this plugin."""

import numpy as np

from helix_core import create
from helix_testing import BaseLayerTests
from helix_testing.counting import count_step


class ChannelMixTests(BaseLayerTests):
    """A channel mix sees one step back, and no further."""

    def test_the_past_reaches_the_future(self, layer_case, x):
        changed = x.copy()
        changed[:, 0] += 1.0
        difference = np.abs(layer_case.exact(changed) - layer_case.exact(x)).max(axis=(0, 2))
        assert difference[1] > 1e-6 * np.abs(layer_case.exact(x)).max()
        assert not difference[2:].any()


class TestMamba(BaseLayerTests):
    layer = "mamba"
    configs = (
        {"d_model": 8, "d_state": 16},
        {"d_model": 5, "d_state": 3, "d_conv": 1, "dt_rank": 2},
        {"d_model": 20, "d_state": 1, "expand": 1, "d_conv": 3},
        {"d_model": 6, "d_state": 4, "bias": True, "conv_bias": False, "bcdt_norm_eps": 1e-6},
    )


class TestS4D(BaseLayerTests):
    layer = "s4d"
    configs = tuple(
        {"d_model": d_model, "d_state": 8, "init": init, "discretization": rule}
        for d_model, init, rule in (
            (8, "lin", "zoh"),
            (5, "inv", "zoh"),
            (4, "real", "zoh"),
            (8, "lin", "bilinear"),
            (5, "inv", "bilinear"),
            (4, "real", "bilinear"),
        )
    )


class TestS4(BaseLayerTests):
    layer = "s4"
    configs = ({"d_model": 8, "d_state": 16}, {"d_model": 5, "d_state": 2}, {"d_model": 3, "d_state": 64})

    def test_its_cost_is_what_it_computes(self, config):
        """A step's arithmetic, counted: how it grows with the state, for one more sequence of the same system."""
        counted, said = [], []
        for d_state in (config["d_state"], config["d_state"] + 10):
            layer = create("layer", "s4", **(config | {"d_state": d_state}))
            counted.append(count_step(layer, 2) - count_step(layer, 1))
            said.append(layer.cost(24).step_flops)
            assert layer.cost(24).forward_flops == said[-1]
            weights = 2 * 2 * config["d_model"] ** 2
            assert said[-1] > weights == 2 * layer.token_weights()
        assert said[1] - said[0] == counted[1] - counted[0] > 0


class TestMamba2(BaseLayerTests):
    layer = "mamba2"
    configs = (
        {"d_model": 8, "d_state": 16, "head_dim": 4, "n_groups": 2},
        {"d_model": 6, "d_state": 3, "head_dim": 3, "d_conv": 1, "expand": 1, "time_step_limit": (0.01, 0.05)},
        {"d_model": 10, "d_state": 1, "head_dim": 20},
        {"d_model": 6, "d_state": 4, "head_dim": 4, "bias": True, "conv_bias": False},
    )


class TestMamba3(BaseLayerTests):
    layer = "mamba3"
    configs = (
        {"d_model": 8, "d_state": 16, "head_dim": 4, "n_groups": 2},
        {"d_model": 6, "d_state": 8, "head_dim": 3, "expand": 1, "mimo_rank": 3, "rope_fraction": 1.0},
        {"d_model": 5, "d_state": 2, "head_dim": 10, "rope_fraction": 0.0, "out_norm": True},
        {"d_model": 6, "d_state": 6, "head_dim": 6, "mimo_rank": 2, "n_groups": 2, "out_norm": True},
    )


class TestRetNet(BaseLayerTests):
    layer = "retnet"
    configs = ({"d_model": 8, "n_heads": 2}, {"d_model": 6, "expand": 1.0}, {"d_model": 12, "n_heads": 3})


class TestGLA(BaseLayerTests):
    layer = "gla"
    configs = (
        {"d_model": 8, "n_heads": 2},
        {"d_model": 5, "n_heads": 1, "expand_k": 1.0, "expand_v": 2.0, "gate_rank": 3},
        {"d_model": 12, "n_heads": 3, "temperature": 4.0},
    )


class TestMinGRU(BaseLayerTests):
    layer = "mingru"
    configs = ({"d_model": 8}, {"d_model": 5, "expand": 2.5})


class TestMinLSTM(BaseLayerTests):
    layer = "minlstm"
    configs = ({"d_model": 8}, {"d_model": 5, "expand": 2.5})


class TestGatedDeltaNet(BaseLayerTests):
    layer = "gated_deltanet"
    configs = (
        {"d_model": 8, "n_heads": 2},
        {"d_model": 6, "n_heads": 4, "n_key_heads": 2, "d_key": 5, "d_value": 3, "d_conv": 1},
    )


class TestRWKV7(BaseLayerTests):
    layer = "rwkv7"
    configs = (
        {"d_model": 8, "head_dim": 4},
        {"d_model": 5, "head_dim": 5, "decay_rank": 2, "rate_rank": 3, "gate_rank": 4},
        {"d_model": 6, "head_dim": 6, "norm_eps": 1e-3},
    )


class TestRWKV7ChannelMix(ChannelMixTests):
    layer = "rwkv7_channel_mix"
    configs = ({"d_model": 8}, {"d_model": 5, "expand": 2.5})


class TestRWKV4(BaseLayerTests):
    layer = "rwkv4"
    configs = ({"d_model": 8}, {"d_model": 5, "d_attention": 7})


class TestRWKV4ChannelMix(ChannelMixTests):
    layer = "rwkv4_channel_mix"
    configs = ({"d_model": 8}, {"d_model": 5, "expand": 2.5})
