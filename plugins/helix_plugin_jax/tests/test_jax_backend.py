"""The conformance kit on JAX, and what is JAX's own: parallel scans, pure functions, narrow integers."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helix_core import create
from helix_core.errors import UsageError
from helix_core.ops import OPS, linear_cross_entropy
from helix_plugin_jax.kernels import _recurrence as recurrence
from helix_plugin_jax.kernels._scan import ON_ACCELERATORS, ON_PROCESSORS
from helix_plugin_jax.kernels.linear_cross_entropy import linear_cross_entropy as chunked_head
from helix_plugin_jax.kernels.linear_scan import linear_scan
from helix_plugin_jax.kernels.selective_scan import selective_scan
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
from helix_testing import BaseBackendTests


class TestJax(BaseBackendTests):
    backend = "jax"


@pytest.fixture(scope="module")
def backend():
    return create("backend", "jax")


@pytest.fixture(scope="module")
def model():
    return LanguageModel(ModelConfig(vocab_size=16, d_model=12, n_layers=2, mixer={"name": "mamba", "d_state": 4}))


SCANS = {"linear_scan": linear_scan, "selective_scan": selective_scan}


@pytest.mark.parametrize("name", SCANS)
def test_what_accelerators_run_equals_the_oracle(backend, rng, name):
    """The parallel scans, on the processor."""
    op = OPS[name]
    run = jax.jit(functools.partial(SCANS[name], scan=ON_ACCELERATORS), static_argnames=tuple(op.attrs))
    for sample in op.samples(rng):
        arrays = [sample.arrays.get(n) for n in op.arrays]
        found = run(*(None if a is None else backend.asarray(a, "float32") for a in arrays), **op.attrs | sample.attrs)
        expected = op.reference(np, *arrays, **sample.attrs)
        for ours, theirs in zip(found, expected, strict=True):
            assert np.allclose(ours, theirs, atol=2e-5 * max(1, np.abs(theirs).max(initial=0)))


@pytest.mark.parametrize("transform", [jax.jacrev, jax.jacfwd, jax.hessian, lambda f: jax.jacrev(jax.jacfwd(f))])
def test_a_recurrence_with_a_derivative_of_its_own_is_differentiated_in_every_way(rng, transform):
    start, a, x = (rng.normal(size=shape).astype("float32") for shape in ((3,), (5, 3), (5, 3)))

    def loss(recurrence, a, s):
        return jnp.sin(jax.checkpoint(recurrence)(s * start, jnp.tanh(s * a), s * x * a)).sum()

    found = transform(functools.partial(loss, recurrence.in_steps))(a, 0.7)
    expected = transform(functools.partial(loss, recurrence.in_parallel))(a, 0.7)
    assert np.allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("rows", [256, 300])
def test_a_head_in_chunks_of_rows_is_that_of_whole_logits(backend, rng, monkeypatch, rows):
    x, weight = (backend.asarray(rng.normal(size=shape), "float32") for shape in ((rows, 6), (50, 6)))
    targets, dnats = backend.asarray(rng.integers(50, size=rows)), backend.asarray(rng.normal(size=rows), "float32")

    def loss(x, weight):
        return (chunked_head(x, weight, targets) * dnats).sum()

    whole = jax.value_and_grad(loss, argnums=(0, 1))(x, weight)
    monkeypatch.setattr(linear_cross_entropy, "CHUNK", 100)
    chunks = jax.value_and_grad(loss, argnums=(0, 1))
    assert f"f32[{rows},50]" not in str(jax.make_jaxpr(chunks)(x, weight))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(jax.jit(chunks)(x, weight)), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scan", [ON_PROCESSORS, ON_ACCELERATORS], ids=["processors", "accelerators"])
def test_parts_of_a_long_scan_join(backend, rng, scan):
    op = OPS["selective_scan"]
    shape = (2, 2 * scan.part + 7, 3)
    arrays = {
        "u": rng.normal(size=shape),
        "delta": rng.uniform(0, 0.3, size=shape),
        "A": -rng.uniform(0.1, 2, size=(3, 4)),
        "B": rng.normal(size=(*shape[:2], 4)),
        "C": rng.normal(size=(*shape[:2], 4)),
    }
    given = [None if n not in arrays else backend.asarray(arrays[n], "float32") for n in op.arrays]
    found = selective_scan(*given, scan=scan)
    expected = op.reference(np, **arrays)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_long_loops_have_the_gradient_of_short_ones(backend, model, rng):
    """Segments are computed again in the backward pass; the gradient is the processor's oracle's."""
    F, params = backend.bind(), {k: backend.asarray(v) for k, v in model.init(0).items()}
    tokens = rng.integers(16, size=(2, 300))
    x, y = (backend.asarray(a.copy()) for a in (tokens[:, :-1], tokens[:, 1:]))
    value, grads = backend.value_and_grad(lambda p, x, y: loss(model, F, p, x, y))(params, x, y)
    cpu = create("backend", "cpu")
    F_cpu, there = cpu.bind(dtype="float64"), {k: cpu.asarray(v, "float64") for k, v in model.init(0).items()}
    a, b = (cpu.asarray(t.copy()) for t in (tokens[:, :-1], tokens[:, 1:]))
    expected, truth = cpu.value_and_grad(lambda p, x, y: loss(model, F_cpu, p, x, y))(there, a, b)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    for name, grad in truth.items():
        scale = float(grad.abs().max())
        assert np.allclose(grads[name], cpu.to_numpy(grad), atol=2e-4 * scale), name


def test_a_model_as_pure_functions(backend, model, rng):
    init, apply = backend.functions(model)
    params, tokens = init(3), backend.asarray(rng.integers(16, size=(4, 7)))
    logits = apply(params, tokens)
    assert logits.shape == (4, 7, 16)
    assert np.allclose(jax.jit(apply)(params, tokens), logits, atol=1e-5)
    one_by_one = jax.vmap(lambda row: apply(params, row[None])[0])(tokens)
    assert np.allclose(one_by_one, logits, atol=1e-5)
    grads = jax.grad(lambda p: apply(p, tokens).sum())(params)
    assert set(grads) == set(params)


def test_parameters_are_drawn_from_a_key_or_a_number(backend, model):
    init, _ = backend.functions(model)
    first, second = jax.random.split(jax.random.key(0))

    def drawn(seed):
        return np.concatenate([value.ravel() for value in init(seed).values()])

    assert np.array_equal(drawn(first), drawn(first))
    assert np.array_equal(drawn(first), drawn(jax.random.key_data(first)))
    assert not np.array_equal(drawn(first), drawn(second))
    assert np.array_equal(drawn(7), np.concatenate([value.ravel() for value in model.init(7).values()]))


def test_a_decoder_keeps_its_own_copy_of_a_state(backend, model, rng):
    F, params = backend.bind(mode="infer"), {k: backend.asarray(v) for k, v in model.init(0).items()}
    tokens = rng.integers(16, size=(2, 5))
    _, state = model.apply(F, params, backend.asarray(tokens), state=model.init_state(F, 2))
    decoder = backend.decoder(model, F, params, batch=2)
    decoder.load(state)
    first = [decoder.step(np.array([1, 2])) for _ in range(3)][-1]
    decoder.load(state)  # the steps before have not used it up
    assert np.array_equal(first, [decoder.step(np.array([1, 2])) for _ in range(3)][-1])
    saved = decoder.state()
    ahead = decoder.step(np.array([3, 4]))
    decoder.load(saved)
    assert np.array_equal(ahead, decoder.step(np.array([3, 4])))


def test_integers_that_do_not_fit_are_refused(backend):
    with pytest.raises(UsageError, match="32 bits"):
        backend.asarray(np.array([2**31], np.int64))


def test_every_layer_is_the_oracles_when_compiled(backend, helix_layer, rng):
    """All at once, in two chunks with the state between them, and a gradient, each as one program.

    The whole layer kit on JAX, which compiles for every shape anew, is in the slow tier.
    """
    layer, reference = create("layer", helix_layer, d_model=64), create("backend", "reference")
    init, apply = backend.functions(layer)
    params, x = init(0), rng.normal(size=(2, 70, 64))
    oracle = {name: reference.asarray(np.asarray(p), "float64") for name, p in params.items()}
    expected, _ = layer.apply(reference.bind(dtype="float64"), oracle, x)
    scale = np.abs(expected).max()
    ours = backend.asarray(x, "float32")
    y = jax.jit(apply)(params, ours)
    assert np.allclose(y, expected, atol=1e-4 * scale)
    if layer.causal:
        chunk = jax.jit(lambda p, x, state: apply(p, x, state=state))
        F = backend.bind(mode="infer")
        first, state = chunk(params, ours[:, :33], layer.init_state(F, 2))
        second, _ = chunk(params, ours[:, 33:], state)
        assert np.allclose(np.concatenate([first, second], axis=1), expected, atol=1e-4 * scale)
    value, grads = jax.jit(jax.value_and_grad(lambda p: (apply(p, ours) ** 2).mean()))(params)
    assert float(value) == pytest.approx(float((expected**2).mean()), rel=1e-4)
    assert all(np.isfinite(g).all() for g in grads.values())
