"""The conformance kit on OpenCL, models beside the oracle and the cpu plugin, and what crosses to the device."""

from __future__ import annotations

import numpy as np
import pytest

from helix_core import create
from helix_core.events import subscribe
from helix_core.generation import Sampling, Stopping, generate
from helix_core.models import LanguageModel, ModelConfig
from helix_core.ops import OPS
from helix_core.plugin_system import explain
from helix_core.testing import BaseBackendTests
from helix_core.testing.layer_case import Case
from helix_core.testing.levels.base import assert_close
from helix_core.testing.levels.ops import check_values
from helix_device_arrays.array import from_numpy
from helix_device_arrays.dtypes import float16
from helix_device_arrays.namespace import Namespace
from helix_plugin_opencl.device import OpenCLDevice

selection = explain("backend", "opencl")
if selection.component is None:
    pytest.skip(f"opencl cannot be used here: {selection.error}", allow_module_level=True)


class TestOpenCL(BaseBackendTests):
    backend = "opencl"


@pytest.fixture(scope="module")
def backend():
    return create("backend", "opencl")


def model_of(mixer):
    return LanguageModel(ModelConfig(vocab_size=256, d_model=64, n_layers=2, mixer={"name": mixer}))


SLOWLY = [pytest.param(name, marks=pytest.mark.slow) for name in ("hyena", "s4d", "rwkv7")]
"""PoCL compiles for seconds; tests/parity and the tests of webgpu have them too."""


@pytest.mark.parametrize("mixer", ["mamba", *SLOWLY])
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


@pytest.mark.parametrize("op_name", ["linear", "rms_norm", "softmax", "selective_scan"])
def test_what_graphics_cards_run_equals_the_oracle(card, op_name, rng):
    """Tiles in shared memory, rows that a work-group shares, single channels: on a processor's driver."""
    F = card.bind(mode="infer")
    check_values(card, F, OPS[op_name], list(OPS[op_name].samples(rng))[-1], "float32")
    x, w = rng.normal(size=(3, 70, 90)), rng.normal(size=(3, 90, 130))
    found = card.to_numpy(card.asarray(x, "float32") @ card.asarray(w, "float32"))
    assert_close(found, x @ w, 1e-5, "a product of several tiles")


@pytest.fixture(scope="module")
def card():
    """A backend whose device says that it is a graphics card."""
    backend = create("backend", "opencl")
    device = backend.arrays = OpenCLDevice(backend.arrays.cl)
    device.namespace = Namespace(device)
    device.vectors, device.rows, device.width, device.lanes = False, 64, 64, 4
    return backend


def test_half_precision_is_stored_in_two_bytes(backend, rng):
    """Only offered where the device has it; storing it is part of OpenCL 1.2."""
    x = rng.normal(size=(5, 7)).astype(np.float16)
    half = from_numpy(backend.arrays, x, float16)
    assert half.packed().buffer.nbytes >= 2 * x.size
    assert np.array_equal(backend.to_numpy(half), x)
    found = backend.to_numpy(half.T[1:] * 2)
    assert found.dtype == np.float16
    assert np.array_equal(found, x.T[1:] * 2)


@pytest.mark.slow
def test_every_layer_is_the_oracles(layer_name, rng):
    """All at once, and in two chunks with the state between them."""
    case = Case(layer_name, {"d_model": 64}, "opencl")
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
