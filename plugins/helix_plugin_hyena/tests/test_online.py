"""The online convolution: the kit, the whole convolution step by step, its operations, and what users do with it."""

import math

import numpy as np
import pytest

import helix_core
from helix_core.kinds.params import init_params
from helix_core.tree import tree_items
from helix_plugin_hyena.hyena import DIRECT
from helix_plugin_hyena.online import Online
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_testing import BaseLayerTests
from helix_testing.counting import CountingTable
from helix_testing.layers import traces, usable_backends

BACKENDS = [pytest.param(name, marks=[pytest.mark.slow] if traces(name) else []) for name in usable_backends()]


class TestHyenaOnline(BaseLayerTests):
    layer = "hyena"
    configs = (
        {"d_model": 6, "l_max": 70, "filter_order": 6, "decoding": "online", "decay_shift": 0.4},
        {"d_model": 4, "l_max": 100, "order": 3, "filter_order": 5, "decoding": "online", "decay_shift": 0.3},
    )

    def test_its_cost_is_what_it_computes(self, config):
        """All at once, each length; the steps of a document in the mean, since few of them do most of the work."""
        layer = helix_core.create("layer", "hyena", **config)
        p = {k: v.astype(np.float64) for k, v in init_params(layer.param_specs(), 0).items()}
        F, online = CountingTable(), Online(layer.config.l_max)
        for length in (1, 24):
            F.flops = 0.0
            layer.apply(F, p, np.ones((1, length, layer.config.d_model)))
            assert layer.cost(length).forward_flops == pytest.approx(F.flops / length)
        state, steps = layer.init_state(F, 1), 4 * online.span
        F.flops = 0.0
        for _ in range(steps):
            _, state = layer.apply(F, p, np.ones((1, 1, layer.config.d_model)), state=state)
        near = 2 * online.block * (layer.config.order - 1) * layer.config.d_model  # sums of products, through no op
        assert layer.cost(steps).step_flops == pytest.approx(F.flops / steps + near)


def convolved(v, h):
    """(B, L, C) with (K, C), as defined."""
    y = np.zeros_like(v)
    for s in range(min(len(h), v.shape[1])):
        y[:, s:] += h[s] * v[:, : v.shape[1] - s]
    return y


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("taps", "block"), [(2, 2), (20, 2), (33, 4), (9, 16)])
def test_steps_of_rows_that_began_at_different_times(name, taps, block):
    """Rows in the middle of different blocks, many spans long: each output is that of the whole convolution."""
    backend = helix_core.create("backend", name)
    F, online = backend.bind(mode="infer"), Online(taps, block)
    rng = np.random.default_rng(0)
    v, h = rng.normal(size=(3, 110, 4)), rng.normal(size=(taps, 4))
    begun = np.array([0, 13, 31])
    history = np.zeros((3, 2 * online.span, 4))
    for row, n in enumerate(begun):
        kept = min(n, 2 * online.span)
        history[row, 2 * online.span - kept :] = v[row, n - kept : n]
    filter = backend.asarray(h, "float32")
    step = backend.compile(lambda state, at, x: online.step(F, state, at, x, filter)) if "jax" in name else None
    with backend.inference():
        at = backend.asarray(begun)
        state = online.build(F, backend.asarray(history, "float32"), at, filter)
        expected = convolved(v, h)
        for t in range(70):
            x = np.stack([v[row, n + t] for row, n in enumerate(begun)])[:, None]
            x = backend.asarray(x, "float32")
            y, state = step(state, at, x) if step else online.step(F, state, at, x, filter)
            at = at + 1
            for row, n in enumerate(begun):
                assert np.abs(backend.to_numpy(y)[row, 0] - expected[row, n + t]).max() < 2e-5
        rebuilt = online.build(F, online.history(F.xp, state, at), at, filter)
    made = dict(tree_items(rebuilt))  # by name: JAX's compiled functions sort them
    assert set(made) == set(state)
    for name, found in tree_items(state):
        assert np.abs(backend.to_numpy(found) - backend.to_numpy(made[name])).max() < 1e-4, name


def operations(taps, steps):
    """Of a channel for so many steps from the first on: what goes through long_conv, and the sums within blocks."""
    F, online = CountingTable(), Online(taps)
    state, h = online.empty(F, 1, 1), np.ones((taps, 1))
    for t in range(steps):
        _, state = online.step(F, state, np.array([t]), np.ones((1, 1, 1)), h)
    return F.flops + 2 * online.block * steps


def test_operations_grow_as_the_squared_logarithm():
    """Four times the taps, as many more steps: each step a few more operations, where a sum has four times as many."""
    each = {taps: operations(taps, 2 * taps) / (2 * taps) for taps in (256, 1024, 4096)}
    for taps, count in each.items():
        assert count <= 1.02 * Online(taps).step_flops() + 1
        assert count < 10 * math.log2(taps) ** 2
    assert each[4096] < 1.7 * each[1024] < 1.7**2 * each[256]
    assert each[4096] < 2 * 4096 / 6


def test_a_step_replaces_small_arrays_only():
    """In 31 steps of 32 everything but the block's own inputs is handed on as it is."""
    backend = helix_core.create("backend", "core/reference")
    F, online = backend.bind(), Online(4096)
    state, h = online.empty(F, 1, 2), np.ones((4096, 2), np.float32)
    for t in range(31):
        _, after = online.step(F, state, np.array([t]), np.ones((1, 1, 2), np.float32), h)
        assert [name for name in state if after[name] is not state[name]] == ["recent"]
        state = after
    _, after = online.step(F, state, np.array([31]), np.ones((1, 1, 2), np.float32), h)
    replaced = {name for name in state if after[name] is not state[name]}
    assert replaced == {"recent", "ahead", "inputs.0", "pending.0"}


def test_long_filters_go_online_by_themselves():
    def step_flops(l_max, **options):
        return helix_core.create("layer", "hyena", d_model=4, l_max=l_max, **options).cost(l_max).step_flops

    for taps, way in ((DIRECT, "direct"), (DIRECT + 1, "online")):
        assert step_flops(taps) == step_flops(taps, decoding=way)
    assert step_flops(DIRECT + 1) < step_flops(DIRECT + 1, decoding="direct") / 2


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("outer", [False, True])
def test_a_model_is_prefilled_and_decoded(name, outer):
    """Ragged prompts, then a decoder's steps, against the model all at once; the state is kept and taken up again."""
    backend = helix_core.create("backend", name)
    F = backend.bind(mode="infer")
    mixer = {"name": "hyena", "l_max": 50, "filter_order": 5, "decoding": "online", "decay_shift": 0.4}
    mixer |= {"num_heads": 2, "outer_product": outer}
    model = LanguageModel(ModelConfig.model_validate({"d_model": 6, "n_layers": 2, "mixer": mixer}))
    params = {k: backend.asarray(v) for k, v in model.init(0).items()}
    tokens = np.random.default_rng(0).integers(256, size=(2, 150))
    prompts = np.array([45, 20])
    mask = np.arange(45)[None] < prompts[:, None]
    with backend.inference():
        _, state = model.apply(
            F, params, backend.asarray(tokens[:, :45]), state=model.init_state(F, 2), mask=backend.asarray(mask)
        )
        whole = backend.to_numpy(model.apply(F, params, backend.asarray(tokens))[0])
    decoder = backend.decoder(model, F, params, batch=2)
    decoder.load(state)
    for t in range(100):
        if t == 60:
            kept = decoder.state()
            decoder = backend.decoder(model, F, params, batch=2)
            decoder.load(kept)
        logits = decoder.step(np.array([tokens[row, n + t] for row, n in enumerate(prompts)]))
        for row, n in enumerate(prompts):
            assert np.abs(logits[row] - whole[row, n + t]).max() < 2e-5 * np.abs(whole).max()
