"""The conformance kit on OpenCL, models, and what only graphics cards or only half precision run."""

from __future__ import annotations

import numpy as np
import pytest

from helix_core import create
from helix_core.ops import OPS
from helix_core.plugin_system import explain
from helix_device_arrays.array import from_numpy
from helix_device_arrays.dtypes import float16
from helix_device_arrays.namespace import Namespace
from helix_device_arrays.testing import DeviceArraysTests
from helix_plugin_opencl.device import OpenCLDevice
from helix_testing.levels.base import assert_close
from helix_testing.levels.ops import check_values

selection = explain("backend", "opencl")
if selection.component is None:
    pytest.skip(f"opencl cannot be used here: {selection.error}", allow_module_level=True)


class TestOpenCL(DeviceArraysTests):
    backend = "opencl"
    slow_mixers = ("hyena", "s4d", "rwkv7")  # PoCL compiles for seconds; tests/parity has them too


@pytest.fixture(scope="module")
def backend():
    return create("backend", "opencl")


@pytest.mark.parametrize("op_name", ["linear", "bit_linear", "rms_norm", "softmax", "selective_scan"])
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
    device.vectors, device.rows, device.apart, device.width, device.lanes = False, 64, 64, 64, 4
    return backend


def test_half_precision_is_stored_in_two_bytes(backend, rng):
    """Only offered where the device has it; storing it is part of OpenCL 1.2."""
    x = rng.normal(size=(50, 70)).astype(np.float16)
    half = from_numpy(backend.arrays, x, float16)
    assert 2 * x.size <= half.packed().buffer.nbytes < 4 * x.size
    assert np.array_equal(backend.to_numpy(half), x)
    found = backend.to_numpy(half.T[1:] * 2)
    assert found.dtype == np.float16
    assert np.array_equal(found, x.T[1:] * 2)
