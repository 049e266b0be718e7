"""Kernels get addresses: what they write through is allotted in a stated dtype and on a stated device.

`torch.set_default_dtype` and `torch.set_default_device` are the user's, for the whole process.
"""

import ast
from pathlib import Path

import pytest
from torch.utils._device import _device_constructors

ROOT = Path(__file__).parents[2]
PLUGINS = ("helix_plugin_cpu", "helix_plugin_cuda", "helix_plugin_torch")
SOURCES = sorted(
    path for name in PLUGINS for found in ROOT.glob(f"**/{name}/src/{name}") for path in found.rglob("*.py")
)
ALLOCATING = {function.__name__ for function in _device_constructors()}
"""The functions of torch that make an array of nothing but sizes and numbers."""


def unstated(source):
    """Calls that leave dtype or device to the process: (line, code)."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        owner, name = call.func.value, call.func.attr
        if isinstance(owner, ast.Name) and owner.id == "torch" and name in ALLOCATING:
            given = {keyword.arg for keyword in call.keywords}
            if None not in given and not given >= {"dtype", "device"}:
                yield call.lineno, ast.unparse(call)


def test_the_sources_are_found():
    assert {name for name in PLUGINS for path in SOURCES if name in path.parts} == set(PLUGINS)
    assert {"empty", "zeros", "full", "tensor", "arange", "linspace"} <= ALLOCATING


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("torch.empty(3)", True),
        ("torch.zeros(3, dtype=torch.int64)", True),
        ("torch.tensor([1], device=x.device)", True),
        ("torch.full((3,), 1.0, dtype=torch.float32, device=CPU)", False),
        ("torch.empty(3, **like)", False),
        ("x.new_empty(3)", False),
        ("torch.empty_like(x)", False),
    ],
)
def test_what_counts(code, found):
    assert bool(list(unstated(code))) == found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-3:]))
def test_every_allocation_states_dtype_and_device(path):
    assert list(unstated(path.read_text())) == []


def test_addresses_of_the_cpu_are_taken_in_one_place():
    """`_arguments.address` refuses what no kernel can read; decoding also compares addresses, which reads nothing."""
    places = {
        path.relative_to(path.parents[1]).as_posix()
        for path in SOURCES
        if "helix_plugin_cpu" in path.parts and "data_ptr" in path.read_text()
    }
    assert places == {"kernels/_arguments.py", "decode/record.py", "decode/decoder.py", "decode/program.py"}
