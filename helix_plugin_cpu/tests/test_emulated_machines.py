"""The kernels on ARM and RISC-V, whose machine code an emulator runs, against the float64 oracle; gradients too."""

import sys
from pathlib import Path

import numpy as np
import pytest

from helix_core import create
from helix_core.ops import OPS
from helix_plugin_cpu.plugin import helix_kernels
from helix_testing.levels.grad import TOLERANCE, check_gradient
from helix_testing.levels.ops import check_values

sys.path.insert(0, str(Path(__file__).parent / "emulation"))
from machines import MACHINES, Machine, missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DTYPES = {descriptor.op: descriptor.dtypes for descriptor in helix_kernels()}


@pytest.fixture(scope="module", params=MACHINES)
def machine(request, tmp_path_factory):
    if absent := missing(request.param):
        pytest.skip(f"not installed: {', '.join(absent)}")
    emulated = Machine(request.param, tmp_path_factory.mktemp(request.param))
    yield emulated
    emulated.stop()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", DTYPES)
def test_a_kernel_is_right_on_another_machine(machine, name, dtype, monkeypatch):
    op, rng = OPS[name], np.random.default_rng(3)
    backend = create("backend", "cpu")
    pins = {name: f"cpu/{name}"}
    if dtype not in DTYPES[name]:
        pytest.skip(f"{name} has no kernel for {dtype}")
    infer, train = (backend.bind(dtype=dtype, mode=mode, pins=pins) for mode in ("infer", "train"))
    before = dict(machine.calls)
    for sample in op.samples(rng):
        with machine.running(monkeypatch):
            check_values(backend, infer, op, sample, dtype)
            if dtype in TOLERANCE:
                check_gradient(backend, train, op, sample, dtype, rng)
    assert machine.calls != before, "no kernel was run there"
