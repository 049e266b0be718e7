"""The conformance kit on WebGPU, models beside the oracle and the cpu plugin, and what crosses to the device."""

from __future__ import annotations

import numpy as np
import pytest

from helix_core import create
from helix_core.events import subscribe
from helix_core.generation import Sampling, Stopping, generate
from helix_core.models import LanguageModel, ModelConfig
from helix_core.ops import OPS, Sample
from helix_core.plugin_system import explain
from helix_core.testing import BaseBackendTests
from helix_core.testing.layer_case import Case
from helix_core.testing.levels.base import assert_close
from helix_core.testing.levels.ops import check_values
from helix_device_arrays.namespace import Namespace

selection = explain("backend", "webgpu")
if selection.component is None:
    pytest.skip(f"webgpu cannot be used here: {selection.error}", allow_module_level=True)


class TestWebGPU(BaseBackendTests):
    backend = "webgpu"


@pytest.fixture(scope="module")
def backend():
    return create("backend", "webgpu")


def model_of(mixer):
    return LanguageModel(ModelConfig(vocab_size=256, d_model=64, n_layers=2, mixer={"name": mixer}))


@pytest.mark.parametrize("mixer", ["mamba", "hyena", "s4d", "rwkv7"])
def test_logits_are_the_oracles_and_two_transfers_are_all(backend, mixer, rng):
    model, tokens = model_of(mixer), rng.integers(256, size=(2, 150))
    values = model.init(0)
    oracle = create("backend", "reference")
    exact = {name: oracle.asarray(value, "float64") for name, value in values.items()}
    expected = model.apply(oracle.bind(dtype="float64", mode="infer"), exact, tokens)[0]
    F, params = backend.bind(mode="infer"), {name: backend.asarray(v, "float32") for name, v in values.items()}
    events = []
    with subscribe(events.append):
        for _ in range(2):  # what layers make of the length is on the device after the first
            backend.transfers()
            logits = backend.to_numpy(model.apply(F, params, backend.asarray(tokens))[0])
        backend.transfers()
    assert_close(logits, expected, 1e-4, f"logits of {mixer}")
    before, after = [e.data for e in events if e.name == "transfers"][-2:]
    moved = {name: after[name] - before[name] for name in after if name != "backend"}
    assert (moved["uploads"], moved["uploaded_bytes"]) == (1, 4 * tokens.size), "tokens in, as 32-bit numbers"
    assert (moved["downloads"], moved["downloaded_bytes"]) == (1, 4 * logits.size), "logits out"
    assert moved["programs"] == 0, "the second pass compiles nothing"
    assert moved["launches"] > 0


def test_greedy_text_is_that_of_the_cpu(backend):
    model, texts = model_of("mamba"), []
    values = model.init(3)
    values["embedding.weight"] = values["embedding.weight"] * 50
    for chosen in (create("backend", "cpu"), backend):
        params = {name: chosen.asarray(value, "float32") for name, value in values.items()}
        F = chosen.bind(mode="infer")
        written = generate(
            model, chosen, F, params, b"def main(", sampling=Sampling(temperature=0), stopping=Stopping(max_tokens=100)
        )
        texts.append(b"".join(written))
    assert len(texts[0]) == 100
    assert texts[0] == texts[1]


@pytest.mark.parametrize("op_name", OPS)
def test_eight_buffers_a_program_are_enough(few_buffers, op_name, rng):
    """So many every adapter has."""
    F = few_buffers.bind(mode="infer")
    for sample in OPS[op_name].samples(rng):
        check_values(few_buffers, F, OPS[op_name], sample, "float32")


@pytest.fixture(scope="module")
def few_buffers():
    from helix_plugin_webgpu.device import WebGPUDevice

    backend = create("backend", "webgpu")
    device = backend.arrays = WebGPUDevice(backend.arrays.adapter)
    device.namespace = Namespace(device)
    device.max_buffers, compiled = 8, device._compile

    def checked(program):
        assert len(program.buffers) <= 8, program.name
        return compiled(program)

    device._compile = checked
    return backend


def test_many_states_a_channel(backend, rng):
    """More than are variables of their own."""
    shape, states = (2, 30, 8), 40
    sample = Sample(
        {
            "u": rng.normal(size=shape),
            "delta": rng.uniform(0, 1, size=shape),
            "A": -rng.uniform(0.1, 4, size=(8, states)),
            "B": rng.normal(size=(2, 30, states)),
            "C": rng.normal(size=(2, 30, states)),
            "initial_state": rng.normal(size=(2, 8, states)),
        }
    )
    check_values(backend, backend.bind(mode="infer"), OPS["selective_scan"], sample, "float32")


def test_every_layer_is_the_oracles(layer_name, rng):
    """All at once, and in two chunks with the state between them."""
    case = Case(layer_name, {"d_model": 64}, "webgpu")
    x = rng.normal(size=(2, 37, 64))
    expected = case.exact(x)
    assert_close(case.parallel(x), expected, 2e-5, "all at once")
    if case.layer.causal:
        first, state = case.run(x[:, :20], case.init_state(2))
        second, _ = case.run(x[:, 20:], state)
        assert_close(np.concatenate([first, second], axis=1), expected, 2e-5, "in two chunks")


def pytest_generate_tests(metafunc):
    if "layer_name" in metafunc.fixturenames:
        from helix_core.plugin_system import components

        metafunc.parametrize("layer_name", [c.descriptor.name for c in components("layer")])
