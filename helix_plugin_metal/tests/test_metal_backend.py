"""The conformance kit on MLX's device, and what is the backend's own: its namespace, its probe, its decoder."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import PackageNotFoundError

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from helix_core import create
from helix_core.errors import UsageError
from helix_core.ops import linear_cross_entropy as core
from helix_core.plugin_system.descriptors import Availability
from helix_plugin_lm.generation import Stopping, beam_search, generate, generate_batch, read_state
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
from helix_plugin_lm.tokenizers import BYTES
from helix_plugin_metal import probe
from helix_plugin_metal.backend import MetalBackend
from helix_plugin_metal.kernels.adamw import adamw
from helix_plugin_metal.kernels.linear_cross_entropy import linear_cross_entropy
from helix_plugin_metal.namespace import xp
from helix_testing import BaseBackendTests


class TestMetal(BaseBackendTests):
    backend = "metal"


@pytest.fixture(scope="module")
def backend():
    return create("backend", "metal")


@pytest.fixture(scope="module")
def model():
    mixer = ({"name": "mamba", "d_state": 4}, {"name": "attention", "n_heads": 2, "window": 9})
    return LanguageModel(ModelConfig(d_model=12, n_layers=2, mixer=mixer))


# Where MLX differs from the array API.


def test_indices_are_signed_and_sorting_is_stable_both_ways(rng):
    values = rng.integers(4, size=(3, 40))
    x = mx.array(values)
    assert np.array_equal(xp.argsort(x, stable=True), np.argsort(values, stable=True))
    assert np.array_equal(xp.argsort(x, descending=True, stable=True), np.argsort(-values, stable=True))
    assert np.array_equal(xp.sort(x, descending=True), np.sort(values)[:, ::-1])
    assert xp.argmax(x, axis=1).dtype == xp.argsort(x).dtype == mx.int64
    assert (xp.argmax(x, axis=1) - 50).max().item() < 0


def test_nothing_is_differentiated_with_respect_to_an_index():
    x = mx.array([3.0, 1.0, 2.0])
    gradient = mx.grad(lambda x: xp.take(x, xp.argsort(x), axis=0)[0] + xp.take_along_axis(x, xp.argsort(x))[2])(x)
    assert gradient.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    "of", [
        lambda xp, x: xp.cumulative_sum(x, axis=1, include_initial=True),
        lambda xp, x: xp.var(x, axis=0, correction=1),
        lambda xp, x: xp.std(x),
        lambda xp, x: xp.clip(x, min=0.1),
        lambda xp, x: xp.clip(x, None, 0.2),
        lambda xp, x: xp.clip(x),
        lambda xp, x: xp.sum(xp.astype(x > 0, xp.int32), axis=1, keepdims=True),
        lambda xp, x: xp.prod(x, axis=-1),
        lambda xp, x: xp.linspace(0, 1, 7),
        lambda xp, x: xp.linspace(0, 1, 7, endpoint=False),
        lambda xp, x: xp.eye(3, 4, k=1),
        lambda xp, x: xp.arange(2, 9, 3),
        lambda xp, x: xp.full((2, 1), 3, dtype=xp.int64),
        lambda xp, x: xp.full_like(x, -xp.inf),
    ],
)  # fmt: skip
def test_results_are_numpys(rng, of):
    x = rng.normal(size=(3, 5)).astype(np.float32)
    found, expected = of(xp, mx.array(x)), of(np, x)
    assert found.shape == expected.shape
    assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "shapes", [((70, 33), (33, 5)), ((2, 3, 40, 8), (8, 9)), ((2, 1, 20, 4), (3, 4, 6)), ((4,), (4,))]
)
def test_products_and_their_gradients_are_mlxs_own(rng, shapes):
    a, b = (mx.array(rng.normal(size=s).astype(np.float32)) for s in shapes)
    weight = mx.array(rng.normal(size=mx.matmul(a, b).shape).astype(np.float32))
    expected = mx.value_and_grad(lambda a, b: (mx.matmul(a, b) * weight).sum(), (0, 1))(a, b)
    found = mx.value_and_grad(lambda a, b: (xp.matmul(a, b) * weight).sum(), (0, 1))(a, b)
    assert np.allclose(found[0], expected[0], rtol=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert ours.shape == theirs.shape
        assert np.allclose(ours, theirs, atol=1e-4)


# Devices.


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for its CPU device with g++")
def test_what_a_gpu_runs_is_the_same(backend, rng, monkeypatch):
    """There a step of training or of decoding is one compiled program, and AdamW one kernel."""
    model = LanguageModel(ModelConfig(d_model=8, n_layers=1, mixer={"name": "mamba", "d_state": 2}))
    F, params = backend.bind(), {k: backend.asarray(v) for k, v in model.init(0).items()}
    x, y = (backend.asarray(rng.integers(256, size=(2, 5))) for _ in range(2))

    def objective(p, x, y, key):
        return loss(model, F, p, x, y)

    expected, gradients = backend.value_and_grad(objective)(params, x, y, None)
    moments = [
        {k: mx.abs(backend.asarray(rng.normal(size=p.shape), "float32")) for k, p in params.items()} for _ in "mv"
    ]
    eager = {k: F.adamw(params[k], gradients[k], moments[0][k], moments[1][k], step=3) for k in params}
    infer, fed = backend.bind(mode="infer"), [np.array([7, 200]), np.array([0, 9])]
    eager_decoder = backend.decoder(model, infer, params, batch=2)
    logits = [eager_decoder.step(tokens) for tokens in fed]
    monkeypatch.setattr(MetalBackend, "device", "metal")
    modules = [m for name, m in sys.modules.items() if name.startswith("helix_plugin_metal.") and hasattr(m, "on_cpu")]
    for module in modules:
        monkeypatch.setattr(module, "on_cpu", lambda: False)
    run = backend.value_and_grad(objective)
    for _ in range(2):
        value, found = run(params, x, y, None)
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)
        assert all(np.allclose(found[k], g, atol=1e-5) for k, g in gradients.items())
    decoder = backend.decoder(model, infer, params, batch=2)
    assert all(np.allclose(decoder.step(tokens), row, atol=1e-5) for tokens, row in zip(fed, logits, strict=True))
    fused = {k: adamw(params[k], gradients[k], moments[0][k], moments[1][k], step=3) for k in params}
    assert all(np.allclose(a, b, atol=1e-6) for k in params for a, b in zip(fused[k], eager[k], strict=True))


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for its CPU device with g++")
def test_a_layer_that_looks_at_numbers_can_be_compiled(backend, rng):
    """`moe` routes by counts, which a compiler does not know."""
    layer = create("layer", "moe", d_model=4, n_experts=2, expert={"name": "swiglu", "d_ff": 4})
    module, x = backend.module(layer), mx.array(rng.normal(size=(1, 5, 4)).astype(np.float32))
    assert np.allclose(mx.compile(module)(x), module(x), atol=1e-5)


@pytest.mark.parametrize(
    ("platform", "machine", "installed", "expected"),
    [
        ("darwin", "arm64", {"mlx-metal"}, Availability(True, "the GPU of Apple silicon, through Metal")),
        ("darwin", "x86_64", set(), Availability(False, "MLX runs on Macs with Apple silicon and on Linux")),
        ("win32", "AMD64", set(), Availability(False, "MLX runs on Macs with Apple silicon and on Linux")),
        ("linux", "x86_64", {"mlx-cpu"}, Availability(True, "MLX's CPU device; Metal needs a Mac with Apple silicon")),
        (
            "linux",
            "aarch64",
            set(),
            Availability(False, "mlx is installed without a device for Linux: pip install 'mlx[cpu]'"),
        ),
    ],
)
def test_the_probe_says_what_mlx_runs_on(monkeypatch, platform, machine, installed, expected):
    def version(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return "0.32"

    monkeypatch.setattr(probe.sys, "platform", platform)
    monkeypatch.setattr(probe.platform, "machine", lambda: machine)
    monkeypatch.setattr(probe, "version", version)
    assert probe.probe() == expected


def test_a_mac_without_its_gpu_part_is_broken(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(probe, "on_apple_silicon", lambda: True)
    monkeypatch.setattr(probe, "version", version)
    assert probe.probe().broken


# Layers.


def test_every_layer_is_the_oracles(backend, helix_layer, rng):
    """All at once, in two chunks with the state between them, and a gradient. The layer kit is in the slow tier."""
    layer, reference = create("layer", helix_layer, d_model=64), create("backend", "reference")
    module, x = backend.module(layer), rng.normal(size=(2, 70, 64))
    oracle = {name: p.astype(np.float64) for name, p in module.to_numpy().items()}
    expected, _ = layer.apply(reference.bind(dtype="float64"), oracle, x)
    scale, ours = np.abs(expected).max(), backend.asarray(x, "float32")
    assert np.allclose(module(ours), expected, atol=1e-4 * scale)
    if layer.causal:
        first, state = module(ours[:, :33], state=module.init_state(2))
        second, _ = module(ours[:, 33:], state=state)
        assert np.allclose(mx.concatenate([first, second], axis=1), expected, atol=1e-4 * scale)
    value, grads = mx.value_and_grad(lambda p: (module.update(p)(ours) ** 2).mean())(module.parameters())
    assert value.item() == pytest.approx(float((expected**2).mean()), rel=1e-4)
    assert all(np.isfinite(g).all() for _, g in tree_flatten(grads))


# Generation.


@pytest.fixture(scope="module")
def parts(backend, model):
    params = {name: backend.asarray(a) for name, a in model.init(0).items()}
    params["embedding.weight"] = params["embedding.weight"] * 10
    return model, backend, backend.bind(mode="infer"), params


def test_rows_of_a_batch_are_the_texts_alone(parts):
    prompts, stopping = [b"", b"a longer prompt than the others", b"zz", b"x"], Stopping(12)
    found = [row.text for row in generate_batch(*parts, prompts, stopping=stopping, seeds=3, width=2)]
    assert found == [b"".join(generate(*parts, p, stopping=stopping, seed=3 + i)) for i, p in enumerate(prompts)]


def test_beams_and_saved_states(parts, tmp_path):
    assert len(list(beam_search(*parts, b"ab", num_beams=3, stopping=Stopping(5)))) == 3
    expected = b"".join(generate(*parts, b"abc", stopping=Stopping(20)))
    first = generate(*parts, b"abc", stopping=Stopping(9))
    text = b"".join(first)
    first.save().write(tmp_path / "state", "me")
    saved = read_state(tmp_path / "state", "me", parts[0], parts[2], BYTES)
    assert text + b"".join(generate(*parts, stopping=Stopping(11), resume=saved)) == expected


def test_a_full_context_is_said_in_words(backend):
    model = LanguageModel(
        ModelConfig(d_model=8, n_layers=1, mixer={"name": "attention", "n_heads": 2, "max_length": 4})
    )
    params = {name: backend.asarray(a) for name, a in model.init(0).items()}
    decoder = backend.decoder(model, backend.bind(mode="infer"), params)
    for token in range(4):
        decoder.step(np.array([token]))
    with pytest.raises(UsageError, match="context is full"):
        decoder.step(np.array([4]))


def test_a_decoder_gives_each_row_the_state_of_another(parts):
    model, backend, F, params = parts
    decoder = backend.decoder(model, F, params, batch=3)
    decoder.step(np.array([1, 2, 3]))
    decoder.reorder([2, 2, 0])
    found = decoder.step(np.array([5, 5, 5]))
    assert np.array_equal(found[0], found[1])
    decoder.load(model.init_state(F, 3))
    decoder.step(np.array([1, 2, 3]))
    straight = decoder.step(np.array([5, 5, 5]))
    assert np.allclose(found, straight[[2, 2, 0]], atol=1e-6)


@pytest.mark.parametrize("rows", [256, 300])
def test_a_head_in_chunks_of_rows_is_that_of_whole_logits(rng, monkeypatch, rows):
    x, weight, dnats = (mx.array(rng.normal(size=s).astype(np.float32)) for s in ((rows, 6), (50, 6), rows))
    targets = mx.array(rng.integers(50, size=rows))

    def loss(x, weight):
        return (linear_cross_entropy(x, weight, targets) * dnats).sum()

    value, gradients = mx.value_and_grad(loss, argnums=(0, 1))(x, weight)
    monkeypatch.setattr(core, "CHUNK", 100)
    for run in (mx.value_and_grad(loss, argnums=(0, 1)), mx.compile(mx.value_and_grad(loss, argnums=(0, 1)))):
        found = run(x, weight)
        assert np.allclose(found[0], value, rtol=1e-5)
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(found[1], gradients, strict=True))
