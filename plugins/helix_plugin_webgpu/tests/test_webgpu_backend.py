"""The conformance kit on WebGPU, models, and the bounds of small adapters."""

from __future__ import annotations

import numpy as np
import pytest

from helix_core import create
from helix_core.ops import OPS, Sample
from helix_core.plugin_system import explain
from helix_device_arrays.namespace import Namespace
from helix_device_arrays.testing import DeviceArraysTests
from helix_testing.levels.base import assert_close
from helix_testing.levels.ops import check_values

selection = explain("backend", "webgpu")
if selection.component is None:
    pytest.skip(f"webgpu cannot be used here: {selection.error}", allow_module_level=True)


class TestWebGPU(DeviceArraysTests):
    backend = "webgpu"


@pytest.fixture(scope="module")
def backend():
    return create("backend", "webgpu")


@pytest.mark.parametrize("op_name", OPS)
def test_what_graphics_cards_run_equals_the_oracle(card, op_name, rng):
    """Tiles in shared memory, rows that a work-group shares, and eight buffers a program, which every adapter has."""
    F = card.bind(mode="infer")
    for sample in OPS[op_name].samples(rng):
        check_values(card, F, OPS[op_name], sample, "float32")


@pytest.mark.parametrize("rows", [1, 3, 5, 70])
def test_products_of_any_size_and_layout(backend, card, rows, rng):
    """Depths that fill no vector, columns that fill no block, batches of either side, slices, transposed factors."""
    cases = [
        ((rows, 90), (90, 130)),
        ((3, rows, 16), (3, 16, 5)),
        ((2, 1, rows, 7), (3, 7, 64)),
        ((rows, 4), (2, 4, 9)),
    ]
    for left, right in cases:
        x, w = (rng.normal(size=shape).astype("float32") for shape in (left, right))
        expected = x.astype("float64") @ w
        turned = w.swapaxes(-1, -2).copy()
        for on in (backend, card):
            xp, a = on.xp, on.asarray(x)
            wide = on.asarray(np.concatenate([x[..., :1], x], axis=-1))[..., 1:]
            for b in (on.asarray(w), xp.matrix_transpose(on.asarray(turned))):
                for first in (a, wide):
                    assert_close(on.to_numpy(first @ b), expected, 2e-6, f"{left} @ {right}")


@pytest.fixture(scope="module")
def card():
    """A backend whose device says that it is a graphics card, and a small one."""
    from helix_plugin_webgpu.device import WebGPUDevice

    backend = create("backend", "webgpu")
    device = backend.arrays = WebGPUDevice(backend.arrays.adapter)
    device.namespace = Namespace(device)
    device.vectors, device.apart = False, device.rows
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
