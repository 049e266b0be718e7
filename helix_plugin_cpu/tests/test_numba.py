"""What kernels use of Numba's inside is there in this version, and the bounds say with which versions it was seen."""

import tomllib
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from packaging.requirements import Requirement

from helix_core.plugin_system import components
from helix_plugin_cpu.kernels._jit import Unsigned, inline, kernel, part
from helix_plugin_cpu.kernels._memory import put
from helix_plugin_cpu.kernels._numba import SEEN

ROOT = Path(__file__).parents[2]
VERSIONS = ("0.62.1", "0.63.1", "0.64.0", "0.66.0", "0.68.1")
"""The tests here and of machine code passed with these; 0.61 has another pass manager."""


@inline
def twice(x):
    return 2.0 * x


@part
def plus(x, n):
    return x + n


@kernel
def run(_counter, _jobs, _scratch, target, x, kind):
    put(target, plus(twice(x), 3))
    put(target + 4, plus(plus(x, 5), kind))


class Scaled(NamedTuple):
    target: int
    factor: float


@kernel
def run_record(_counter, _jobs, _scratch, first: Scaled, x, second: Scaled):
    for record in (first, second):
        put(record.target, record.factor * x)


def test_a_record_takes_a_word_for_each_of_its_fields():
    target = np.zeros(2, np.float32)
    at = target.ctypes.data
    run_record(0, 0, 0, *Scaled(at, 2.0), 1.5, *Scaled(at + 4, -1.0))
    assert target.tolist() == [3.0, -1.5]


def test_a_kernel_of_every_kind_of_part_compiles_and_runs():
    target = np.zeros(2, np.float32)
    for kind in (1, Unsigned(1), 1.0):
        run(0, 0, 0, target.ctypes.data, 2.5, kind)
        assert target.tolist() == [8.0, 8.5]
    assert len(run.dispatcher.overloads) == 3


def bounds(text):
    requirement = Requirement(text)
    assert requirement.name == "numba"
    return {(s.operator, s.version) for s in requirement.specifier}


def test_the_versions_asked_for_are_those_it_was_seen_with():
    first, beyond = SEEN
    expected = {(">=", first), ("<", beyond)}
    for project in ("helix_plugin_cpu", "helix_plugin_topomemory"):
        asked = tomllib.loads((ROOT / project / "pyproject.toml").read_text())["project"]["dependencies"]
        assert [bounds(text) for text in asked if text.startswith("numba")] == [expected]
    for found in (c.descriptor for kind in ("backend", "kernel") for c in components(kind) if c.plugin == "cpu"):
        asked = [text for text in found.requires if text.startswith("numba")]
        assert [bounds(text) for text in asked] == [expected], found.name
    wanted = Requirement(f"numba>={first},<{beyond}").specifier
    assert all(version in wanted for version in (*VERSIONS, numba.__version__))
