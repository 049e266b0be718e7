"""Level 2, mandatory: arrays get in and out unharmed, and the op table binds."""

from __future__ import annotations

import ast
import inspect
import textwrap

import numpy as np
import pytest

from helix_core.errors import HelixError
from helix_core.kinds.backend import Backend
from helix_core.ops import OPS
from helix_core.ops.half import storage
from helix_core.ops.table import MODES

ARRAYS: dict[str, np.ndarray] = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "scalar": np.array(2.5, np.float32),
    "empty": np.empty((0, 3), np.float32),
    "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "strided": np.arange(12, dtype=np.float32)[::2],
    "reversed": np.arange(5, dtype=np.float32)[::-1],
    "integers": np.array([[0, 255], [7, -3]], np.int64),
    "booleans": np.array([True, False, True]),
}


class BasicLevel:
    """Round trips, dtypes, the namespace's names, binding."""

    @pytest.mark.parametrize("kind", ARRAYS)
    def test_arrays_survive_the_round_trip(self, backend_instance: Backend, kind: str) -> None:
        array = ARRAYS[kind]
        back = backend_instance.to_numpy(backend_instance.asarray(array))
        assert isinstance(back, np.ndarray)
        assert back.shape == array.shape
        assert np.array_equal(back, array)

    def test_a_dtype_converts_floats_only(self, backend_instance: Backend) -> None:
        for dtype in backend_instance.dtypes():
            x = backend_instance.asarray(np.ones(3, np.float64), dtype)
            assert dtype in str(x.dtype)
            # JAX has no wider integers than 32 bits unless told otherwise.
            assert str(backend_instance.asarray(np.ones(3, np.int64), dtype).dtype).endswith(("int64", "int32"))
            assert "bool" in str(backend_instance.asarray(np.ones(3, bool), dtype).dtype)

    def test_a_read_only_array_is_not_written_through(self, backend_instance: Backend) -> None:
        array = np.zeros(4, np.float32)
        array.flags.writeable = False
        x = backend_instance.asarray(array)
        assert np.array_equal(backend_instance.to_numpy(x + 1), np.ones(4, np.float32))
        assert np.array_equal(array, np.zeros(4, np.float32))

    def test_the_namespace_has_every_function_that_references_use(self, backend_instance: Backend) -> None:
        missing = [name for name in sorted(names_used()) if not _has(backend_instance.xp, name)]
        assert missing == []

    @pytest.mark.parametrize("mode", MODES)
    def test_the_table_binds_and_says_why(self, backend_instance: Backend, mode: str) -> None:
        for dtype in backend_instance.dtypes():
            F = backend_instance.bind(dtype=dtype, mode=mode)
            assert set(F.trail) == set(OPS)
            assert all(choice.chosen and choice.reason for choice in F.trail.values())
            assert backend_instance.to_numpy(F.zeros(2, 3)).shape == (2, 3)
            assert storage(dtype) in str(F.zeros(1).dtype)

    def test_a_dtype_it_does_not_compute_in_is_refused(self, backend_instance: Backend) -> None:
        with pytest.raises(HelixError, match="does not compute in float8"):
            backend_instance.bind(dtype="float8")

    def test_inference_and_synchronize_can_be_used(self, backend_instance: Backend) -> None:
        with backend_instance.inference():
            x = backend_instance.asarray(np.ones(2, np.float32)) * 3
        backend_instance.synchronize()
        assert backend_instance.to_numpy(x).tolist() == [3, 3]

    def test_it_describes_where_it_runs(self, backend_instance: Backend) -> None:
        facts = backend_instance.describe()
        assert facts["device"] in backend_instance.devices()


def names_used() -> set[str]:
    """The array-API names that op references call, read from their source."""
    names: set[str] = set()
    modules = {inspect.getmodule(op.reference) for op in OPS.values()}
    for module in modules:
        assert module is not None
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(module)))):
            if isinstance(node, ast.Attribute):
                parts: list[str] = [node.attr]
                value = node.value
                while isinstance(value, ast.Attribute):
                    parts.append(value.attr)
                    value = value.value
                if isinstance(value, ast.Name) and value.id == "xp":
                    names.add(".".join(reversed(parts)))
    return names - {"fft"}


def _has(xp: object, dotted: str) -> bool:
    for part in dotted.split("."):
        if not hasattr(xp, part):
            return False
        xp = getattr(xp, part)
    return True
