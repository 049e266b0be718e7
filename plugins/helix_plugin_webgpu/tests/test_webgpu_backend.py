"""The conformance kit on WebGPU, models, and the bounds of small adapters."""

from __future__ import annotations

import pytest

from helix_core import create
from helix_core.ops import OPS, Sample
from helix_core.plugin_system import explain
from helix_core.testing.levels.ops import check_values
from helix_device_arrays.namespace import Namespace
from helix_device_arrays.testing import DeviceArraysTests

selection = explain("backend", "webgpu")
if selection.component is None:
    pytest.skip(f"webgpu cannot be used here: {selection.error}", allow_module_level=True)


class TestWebGPU(DeviceArraysTests):
    backend = "webgpu"


@pytest.fixture(scope="module")
def backend():
    return create("backend", "webgpu")


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
