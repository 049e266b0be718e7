"""Mixtures of experts: the definition, what is skipped, and the loss that balances."""

import numpy as np
import pytest

import helix_core
from helix_core.errors import ConfigError
from helix_core.kinds.params import init_params
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss

EXPERT = {"name": "swiglu", "d_ff": 6}


@pytest.fixture
def reference():
    return helix_core.create("backend", "reference")


def made(**options):
    layer = helix_core.create("layer", "moe", d_model=4, n_experts=5, expert=EXPERT, **options)
    return layer, {name: value.astype(np.float64) for name, value in init_params(layer.param_specs(), 0).items()}


def test_it_is_the_weighted_sum_over_the_chosen_experts(reference):
    layer, p = made(top_k=2)
    F = reference.bind(dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 7, 4))
    y, _ = layer.apply(F, p, x)
    for b, t in np.ndindex(2, 7):
        scores = p["gate.weight"] @ x[b, t]
        gates = np.exp(scores) / np.exp(scores).sum()
        chosen = np.argsort(-gates)[:2]
        expected = 0
        for e in chosen:
            own = {k.removeprefix(f"experts.{e}."): v for k, v in p.items() if k.startswith(f"experts.{e}.")}
            expected = expected + gates[e] / gates[chosen].sum() * layer.expert.apply(F, own, x[b, t][None, None])[0]
        np.testing.assert_allclose(y[b, t], expected[0, 0], rtol=1e-12)


def test_decoding_reads_the_experts_that_are_chosen():
    layer, _ = made(top_k=2)
    expert, gate = 3 * 4 * 6, 5 * 4
    assert layer.cost(1).step_bytes == pytest.approx(4 * (gate + 2 * expert))
    expected = 5 * (1 - (3 / 5) ** 2)  # distinct experts of two tokens that choose two of five each
    assert layer.cost(1, batch=2).step_bytes == pytest.approx(4 * (gate + expected * expert) / 2)


def test_experts_compute_their_own_steps_only(reference, monkeypatch):
    layer, p = made(top_k=2)
    seen = []
    apply = layer.expert.apply
    monkeypatch.setattr(layer.expert, "apply", lambda F, q, x, **rest: (seen.append(x.shape[1]), apply(F, q, x))[1])
    layer.apply(reference.bind(dtype="float64"), p, np.random.default_rng(0).normal(size=(3, 11, 4)))
    assert sum(seen) == 3 * 11 * 2


def test_a_shared_expert_sees_every_step(reference):
    layer, p = made(top_k=2, shared_expert={"name": "gelu_mlp", "d_ff": 3})
    F = reference.bind(dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 7, 4))
    without, _ = made(top_k=2)[0].apply(F, p, x)
    own = {k.removeprefix("shared_expert."): v for k, v in p.items() if k.startswith("shared_expert.")}
    gate = 1 / (1 + np.exp(-x @ p["shared_expert_gate.weight"].T))
    expected = without + gate * layer.shared.apply(F, own, x)[0]
    np.testing.assert_allclose(layer.apply(F, p, x)[0], expected, rtol=1e-12)
    plain = helix_core.create("layer", "moe", d_model=4, n_experts=5, expert=EXPERT, top_k=2)
    assert layer.token_weights() == plain.token_weights() + layer.shared.token_weights() + 4


def test_the_balance_is_least_when_experts_are_used_equally(reference):
    layer, p = made(top_k=1, balance=1.0)
    F = reference.bind(dtype="float64")
    p["gate.weight"] = np.eye(5, 4) * 50
    even = np.concatenate([np.eye(4), -np.ones((1, 4))])[None]
    assert layer.apply_with_loss(F, p, even)[2] == pytest.approx(1.0)
    same = np.tile(np.eye(4)[:1], (5, 1))[None]
    assert layer.apply_with_loss(F, p, same)[2] == pytest.approx(5.0)
    padded = np.concatenate([even, np.tile(same[:, :1], (1, 9, 1))], axis=1)
    assert layer.apply_with_loss(F, p, padded, lengths=np.array([5]))[2] == pytest.approx(1.0)


def test_the_balance_reaches_the_training_loss_and_its_gradient():
    backend = helix_core.create("backend", "cpu")
    F = backend.bind()
    tokens = backend.asarray(np.random.default_rng(0).integers(256, size=(2, 12)))
    values, grads = {}, {}
    for balance in (0.0, 0.5):
        config = {
            "d_model": 8,
            "n_layers": 2,
            "mixer": {"name": "attention", "n_heads": 2, "window": 8},
            "mlp": [{"name": "moe", "n_experts": 4, "expert": EXPERT, "balance": balance}, EXPERT],
        }
        model = LanguageModel(ModelConfig.model_validate(config))
        params = {k: backend.asarray(v) for k, v in model.init(0).items()}
        values[balance], grads[balance] = backend.value_and_grad(
            lambda p, model=model: loss(model, F, p, tokens, tokens)
        )(params)
    assert 0.5 * 0.9 < float(values[0.5] - values[0.0]) < 0.5 * 4
    gate = "blocks.0.mlp.gate.weight"
    assert np.abs(backend.to_numpy(grads[0.5][gate] - grads[0.0][gate])).max() > 1e-4


def test_a_model_with_experts_is_decoded():
    backend = helix_core.create("backend", "cpu")
    F = backend.bind(mode="infer")
    config = {"d_model": 8, "n_layers": 1, "mixer": {"name": "mamba"}, "mlp": {"name": "moe", "expert": EXPERT}}
    model = LanguageModel(ModelConfig.model_validate(config))
    params = {k: backend.asarray(v) for k, v in model.init(0).items()}
    tokens = np.random.default_rng(0).integers(256, size=(1, 9))
    decoder = backend.decoder(model, F, params)
    found = np.stack([decoder.step(tokens[:, t]) for t in range(9)], axis=1)
    np.testing.assert_allclose(found, backend.to_numpy(model.apply(F, params, backend.asarray(tokens))[0]), atol=2e-5)


def test_what_makes_no_sense_is_refused():
    for options, message in (
        ({"top_k": 6}, "more than there are experts"),
        ({"top_k": 1, "normalize": True}, "gate would learn nothing"),
        ({"expert": {"name": "attention", "n_heads": 1}}, "take an MLP"),
    ):
        with pytest.raises(ConfigError, match=message):
            helix_core.create("layer", "moe", **{"d_model": 4, "n_experts": 5, "expert": EXPERT} | options)


def test_experts_are_as_wide_as_the_layer():
    with pytest.raises(ConfigError, match="as wide as the model"):
        helix_core.create("layer", "moe", d_model=4, n_experts=2, expert={**EXPERT, "d_model": 8})
