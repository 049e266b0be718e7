"""Attention where the layer kit does not look: the papers' formula, the end of a cache, whole models."""

import numpy as np
import pytest

import helix_core
from helix_core.errors import ConfigError, UsageError
from helix_core.kinds.params import init_params
from helix_plugin_lm.generation import Stopping, generate, generate_batch
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_plugin_training import evaluate
from helix_plugin_training.data.corpus import Document


def model_of(backend, **options):
    config = {"d_model": 16, "n_layers": 2, "mixer": {"name": "attention", "n_heads": 2, **options}}
    model = LanguageModel(ModelConfig.model_validate(config | {"mlp": {"name": "swiglu"}}))
    F = backend.bind(mode="infer")
    return model, F, {name: backend.asarray(value) for name, value in model.init(0).items()}


@pytest.fixture
def cpu():
    return helix_core.create("backend", "cpu")


def test_it_is_the_formula_of_the_paper():
    layer = helix_core.create("layer", "attention", d_model=6, n_heads=3, rope=False)
    p = init_params(layer.param_specs(), 0)
    x = np.random.default_rng(0).normal(size=(1, 5, 6))
    F = helix_core.create("backend", "reference").bind(dtype="float64")
    y, _ = layer.apply(F, p, x)
    q, k, v = (x[0] @ p[f"{n}_proj.weight"].T for n in "qkv")
    heads = []
    for h in range(3):
        at = slice(2 * h, 2 * h + 2)
        scores = np.exp(q[:, at] @ k[:, at].T / np.sqrt(2)) * np.tri(5)
        heads.append(scores / scores.sum(1, keepdims=True) @ v[:, at])
    np.testing.assert_allclose(y[0], np.concatenate(heads, 1) @ p["o_proj.weight"].T, rtol=1e-12)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rotary_positions_are_those_of_hugging_face(fraction):
    modeling = pytest.importorskip("transformers.models.gpt_neox.modeling_gpt_neox")
    torch = pytest.importorskip("torch")
    from helix_plugin_blocks._rotary import angles, rotate

    width, turned = 16, int(16 * fraction)
    x = np.random.default_rng(0).normal(size=(1, 400, 2, width))
    F = helix_core.create("backend", "reference").bind(dtype="float64")
    found = rotate(np, x, *angles(F, np.arange(400), turned, 10000.0))
    rates = 10000.0 ** -(np.arange(0, turned, 2) / turned)
    angle = torch.tensor(np.concatenate([np.outer(np.arange(400), rates)] * 2, axis=1))[None]
    q = torch.tensor(x).transpose(1, 2)
    expected, _ = modeling.apply_rotary_pos_emb(q, q, torch.cos(angle), torch.sin(angle))
    np.testing.assert_allclose(found, expected.transpose(1, 2).numpy(), atol=1e-9)


def test_a_position_far_away_is_as_exact_as_a_near_one(cpu):
    from helix_plugin_blocks._rotary import angles

    F = cpu.bind()
    cos, _ = angles(F, cpu.asarray(np.array([10_000_019])), 8, 10000.0)
    expected = np.cos(10_000_019 * 10000.0 ** -(np.arange(0, 8, 2) / 8))
    np.testing.assert_allclose(cpu.to_numpy(cos)[0, 0], expected, atol=5e-3)


@pytest.mark.parametrize("backend_name", ["reference", "cpu"])
def test_a_document_longer_than_the_cache_is_an_error(backend_name):
    backend = helix_core.create("backend", backend_name)
    model, F, params = model_of(backend, max_length=8)
    tokens = backend.asarray(np.zeros((1, 9), np.int64))
    model.apply(F, params, tokens)  # all at once there is no cache
    with pytest.raises(UsageError, match="longer than the attention's cache of max_length = 8"):
        model.apply(F, params, tokens, state=model.init_state(F, 1))
    decoder = backend.decoder(model, F, params)
    for _ in range(8):
        decoder.step(np.array([1]))
    before = backend.to_numpy(decoder.state()["blocks"][0]["mixer"]["keys"])
    with pytest.raises(UsageError, match="max_length"):
        decoder.step(np.array([1]))
    assert np.array_equal(backend.to_numpy(decoder.state()["blocks"][0]["mixer"]["keys"]), before)


def test_a_reset_makes_room_again(cpu):
    model, F, params = model_of(cpu, max_length=8)
    tokens, reset = np.zeros((1, 15), np.int64), np.zeros((1, 15), bool)
    reset[0, 7] = True
    state = model.init_state(F, 1)
    _, state = model.apply(F, params, cpu.asarray(tokens), state=state, reset=cpu.asarray(reset))
    assert model.room(F, state) == 0


def test_generation_says_what_does_not_fit(cpu):
    def write(prompt, tokens):
        text = generate(model, cpu, F, params, prompt, stopping=Stopping(max_tokens=tokens))
        b"".join(text)
        return text.tokens, text.finish

    model, F, params = model_of(cpu, max_length=20)
    assert write(b"0123456789", 10) == (10, "length")
    # Eleven read, nine more fit; the logits after the last give a token that need not be read.
    assert write(b"0123456789", 11) == (10, "context full")
    with pytest.raises(UsageError, match="21 tokens; this model can take in 20"):
        write(b"0123456789" * 2, 1)
    rows = generate_batch(model, cpu, F, params, [b"0123456789", b"0"], stopping=Stopping(max_tokens=15))
    assert [(len(row.tokens), row.finish) for row in rows] == [(10, "context full"), (15, "length")]
    model, F, params = model_of(cpu, window=20)
    assert write(b"0123456789" * 5, 30) == (30, "length")


@pytest.mark.parametrize("options", [{"max_length": 64}, {"window": 7}, {"window": 64, "n_kv_heads": 1}])
def test_the_recorded_decoder_steps_as_the_model_does(cpu, options):
    model, F, params = model_of(cpu, **options)
    tokens = np.random.default_rng(0).integers(256, size=(2, 30))
    logits, _ = model.apply(F, params, cpu.asarray(tokens))
    decoder = cpu.decoder(model, F, params, batch=2)
    found = np.stack([decoder.step(tokens[:, t]) for t in range(30)], axis=1)
    np.testing.assert_allclose(found, cpu.to_numpy(logits), atol=2e-5)


def test_long_documents_are_coded_in_overlapping_windows(cpu):
    """Bits of the windows, counted here byte by byte."""
    model, F, params = model_of(cpu, max_length=16)
    rng = np.random.default_rng(0)
    documents = [Document("d", rng.integers(256, size=n).astype(np.uint8)) for n in (45, 16, 17, 3)]
    nats = 0.0
    for document in documents:
        tokens = np.concatenate([[0], document.data]).astype(np.int64)
        for t in range(len(document)):
            first = 0 if t < 16 else 16 + (t - 16) // 8 * 8 - 8
            logits, _ = model.apply(F, params, cpu.asarray(tokens[None, first : t + 1]))
            z = cpu.to_numpy(logits)[0, -1].astype(np.float64)
            nats += np.log(np.exp(z - z.max()).sum()) + z.max() - z[document.data[t]]
    found = evaluate(model, cpu, F, params, documents)
    assert found.bytes == 81
    assert found.bits == pytest.approx(nats / np.log(2), rel=1e-5)


def test_options_that_do_not_fit_are_refused():
    for options, message in (
        ({"n_heads": 3}, "multiple of n_heads"),
        ({"n_heads": 4, "n_kv_heads": 3}, "n_kv_heads"),
        ({"n_heads": 8}, "pairs"),
    ):
        with pytest.raises(ConfigError, match=message):
            helix_core.create("layer", "attention", d_model=8, **options)
