"""The kernel kit: one kernel of one op, against the float64 oracle and its gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import pytest

from helix_core.kinds.backend import Backend
from helix_core.ops import OPS, Op, Sample
from helix_core.ops.table import OpTable
from helix_core.plugin_system import kernel_descriptors
from helix_testing.levels.apart import check_apart, check_nan
from helix_testing.levels.base import require
from helix_testing.levels.grad import TOLERANCE, check_gradient, check_gradients_apart, check_nan_gradient
from helix_testing.levels.ops import check_values


class BaseKernelTests:
    """Set `kernel` ("plugin/name"), `op` and `backend`; override `samples` to add inputs of your own."""

    kernel: ClassVar[str] = ""
    op: ClassVar[str] = ""
    backend: ClassVar[str] = ""

    def samples(self, rng: np.random.Generator) -> Iterable[Sample]:
        """Further inputs: shapes and extremes that this kernel treats specially."""
        return ()

    @classmethod
    def helix_parametrize(cls, metafunc: pytest.Metafunc) -> None:
        metafunc.parametrize("backend_name", [cls.backend], scope="class")

    def _bind(self, backend: Backend, dtype: str, mode: str) -> OpTable:
        return backend.bind(dtype=dtype, mode=mode, pins={self.op: self.kernel})

    def _samples(self, rng: np.random.Generator) -> list[Sample]:
        return [*OPS[self.op].samples(rng), *self.samples(rng)]

    def _first_and_last(self, rng: np.random.Generator) -> list[Sample]:
        """The first and the last, for what compiles much."""
        samples = self._samples(rng)
        return [samples[0], samples[-1]]

    def _dtypes(self, backend: Backend) -> list[str]:
        (descriptor,) = [d for plugin, d in kernel_descriptors() if f"{plugin}/{d.name}" == self.kernel]
        return [dtype for dtype in backend.dtypes() if dtype in descriptor.dtypes]

    def test_it_is_bound_when_pinned(self, backend_instance: Backend) -> None:
        for dtype in self._dtypes(backend_instance):
            assert self._bind(backend_instance, dtype, "infer").trail[self.op].chosen == self.kernel

    def test_it_equals_the_oracle(self, backend_instance: Backend, rng: np.random.Generator) -> None:
        for dtype in self._dtypes(backend_instance):
            F = self._bind(backend_instance, dtype, "infer")
            for sample in self._samples(rng):
                check_values(backend_instance, F, self._op, sample, dtype)

    def test_its_gradient_equals_the_oracles(self, backend_instance: Backend, rng: np.random.Generator) -> None:
        require(backend_instance, "grad")
        for dtype in self._dtypes(backend_instance):
            if dtype in TOLERANCE:
                F = self._bind(backend_instance, dtype, "train")
                for sample in self._samples(rng):
                    check_gradient(backend_instance, F, self._op, sample, dtype, rng)

    def test_two_calls_do_not_disturb_each_other(self, backend_instance: Backend, rng: np.random.Generator) -> None:
        """Nor do their backward passes, which may get one gradient, none, or one whose elements are all one."""
        require(backend_instance, "grad")
        dtype = self._dtypes(backend_instance)[0]
        if dtype in TOLERANCE:
            F = self._bind(backend_instance, dtype, "train")
            for sample in self._first_and_last(rng):
                check_gradients_apart(backend_instance, F, self._op, sample, dtype, rng)
                check_nan_gradient(backend_instance, F, self._op, sample, dtype, rng)

    def test_it_repeats_bit_by_bit_and_keeps_to_itself(
        self, backend_instance: Backend, rng: np.random.Generator
    ) -> None:
        dtype = self._dtypes(backend_instance)[0]
        F = self._bind(backend_instance, dtype, "infer")
        for sample in self._samples(rng):
            check_apart(backend_instance, F, self._op, sample, dtype)

    def test_nan_comes_out_where_it_counts(self, backend_instance: Backend, rng: np.random.Generator) -> None:
        dtype = self._dtypes(backend_instance)[0]
        F = self._bind(backend_instance, dtype, "infer")
        for sample in self._first_and_last(rng):
            check_nan(backend_instance, F, self._op, sample, dtype, rng)

    @property
    def _op(self) -> Op:
        return OPS[self.op]
