"""Level 3 too: an op does not see padding, other documents and later steps, whatever they contain."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from helix_core.kinds.backend import Backend
from helix_core.ops import OPS, Op, Sample
from helix_core.ops.table import OpTable
from helix_testing.levels.base import TOLERANCE, as_tuple, assert_close, require
from helix_testing.levels.ops import call, oracle, to_backend

POISONS = (float("nan"), float("inf"), 1e30)
"""What stands, with either sign, where nothing may be read. A product of two of the last overflows."""

BEFORE = ("initial_state", "keys", "values")
"""What a row goes on from: part of the document that its first step is in."""

TILED = ("gated_delta_rule", "gated_linear_attention", "rwkv7", "ssd")
"""Those that kernels compute as products of tiles of steps."""

CAUSAL = tuple(name for name, op in OPS.items() if {"reset", "position"} & set(op.arrays))
"""The ops over time."""


@dataclass(frozen=True)
class Poisoned:
    """A sample, the steps of it that are poisoned and those that must not notice, both (B, L).

    before   rows (B,) whose state before the call is poisoned
    states   rows (B,) whose last state must not notice
    weights  whether the gradients of arrays without steps must not notice either
    """

    sample: Sample
    poisoned: np.ndarray
    protected: np.ndarray
    before: np.ndarray
    states: np.ndarray
    weights: bool
    what: str

    def with_value(self, op: Op, value: float) -> Sample:
        """The sample with `value` in all poisoned places."""
        arrays = dict(self.sample.arrays)

        def poison(mask: np.ndarray, array: np.ndarray) -> np.ndarray:
            signs = np.where(np.arange(array.size) % 3, 1.0, -1.0).reshape(array.shape)
            return np.where(_spread(mask, array), signs * value, array)

        for name in steps_of(op, self.sample):
            arrays[name] = poison(self.poisoned, arrays[name])
        for name in BEFORE:
            if name in arrays:
                arrays[name] = poison(self.before, arrays[name])
        return Sample(arrays, self.sample.attrs, f"{self.sample.label}, {value} in {self.what}")


class IsolationLevel:
    """Real outputs, states and gradients of real steps do not notice poison elsewhere."""

    @pytest.mark.parametrize("op_name", CAUSAL)
    def test_poison_elsewhere_changes_no_output(
        self, backend_instance: Backend, op_name: str, rng: np.random.Generator
    ) -> None:
        F = backend_instance.bind(mode="infer")
        for sample in _samples(backend_instance, OPS[op_name], rng):
            check_isolation(backend_instance, F, OPS[op_name], sample)

    @pytest.mark.parametrize("op_name", CAUSAL)
    def test_poison_elsewhere_changes_no_gradient(
        self, backend_instance: Backend, op_name: str, rng: np.random.Generator
    ) -> None:
        require(backend_instance, "grad")
        F = backend_instance.bind(mode="train")
        for sample in _samples(backend_instance, OPS[op_name], rng):
            check_isolated_gradients(backend_instance, F, OPS[op_name], sample, rng)


def _samples(backend: Backend, op: Op, rng: np.random.Generator) -> list[Sample]:
    """An op's samples; the first alone where everything is compiled anew for every shape, which takes minutes."""
    samples = list(op.samples(rng))
    return samples[:1] if "traces" in backend.capabilities else samples


def check_isolation(backend: Backend, F: OpTable, op: Op, sample: Sample) -> None:
    """One op on one sample, poisoned in every way: protected outputs are those of the unpoisoned oracle."""
    expected = oracle(op, sample)
    for case in poisoned(op, sample):
        for value in POISONS:
            if case.what == "later steps" and np.isfinite(value) and not rounds_in_order(backend):
                continue
            if case.what != "padding" and not masks_within_rows(backend, op):
                continue
            bad = case.with_value(op, value)
            with np.errstate(all="ignore"):
                found = call(backend, F, op, to_backend(backend, bad, "float32"), bad)
            label = f"{op.name} [{F.trail[op.name].chosen}] {bad.label}"
            y, *states = (np.where(np.isfinite(a), a, np.nan) for a in found)
            inside = _spread(case.protected, y)
            assert_close(np.where(inside, y, 0), np.where(inside, expected[0], 0), TOLERANCE["float32"], label)
            for name, state, clean in zip(op.outputs[1:], states, expected[1:], strict=True):
                rows = _spread(case.states, state)
                assert_close(
                    np.where(rows, state, 0), np.where(rows, clean, 0), TOLERANCE["float32"], f"{label}: {name}"
                )


def check_isolated_gradients(
    backend: Backend, F: OpTable, op: Op, sample: Sample, rng: np.random.Generator, tolerance: float = 2e-4
) -> None:
    """The gradients of protected outputs, with poison elsewhere: those without poison, and zeros at padding."""
    for case in poisoned(op, sample):
        if case.what == "later steps":
            continue  # a step's gradient is that of all later ones, so their zeros meet the poison by definition
        if case.what != "padding" and not masks_within_rows(backend, op):
            continue
        shapes = [value.shape for value in oracle(op, sample)]
        masks = [case.protected, *([case.states] * (len(shapes) - 1))]
        inside = [_spread(mask, np.empty(shape)) for mask, shape in zip(masks, shapes, strict=True)]
        weights = [np.where(here, rng.normal(size=here.shape), 0.0) for here in inside]
        gradients = _gradient_of(backend, F, op, sample, weights)
        clean = gradients(sample)
        for value in POISONS:
            bad = case.with_value(op, value)
            with np.errstate(all="ignore"):
                found = gradients(bad)
            for name, grad in found.items():
                label = f"{op.name} [{F.trail[op.name].chosen}] {bad.label}: d/d{name}"
                if name in steps_of(op, sample):
                    grad, expected = (np.where(_spread(case.protected, a), a, 0) for a in (grad, clean[name]))
                    if case.what == "padding":
                        assert not found[name][_spread(~case.protected, found[name])].any(), f"{label} is not 0 there"
                elif name in BEFORE:
                    rows = _spread(~case.before, grad)
                    grad, expected = np.where(rows, grad, 0), np.where(rows, clean[name], 0)
                elif case.weights:
                    expected = clean[name]
                else:
                    continue
                assert_close(np.where(np.isfinite(grad), grad, np.nan), expected, tolerance, label)


def rounds_in_order(backend: Backend) -> bool:
    """Whether `long_conv` tells rows apart that grow.

    To ask would hold up a graphics card, whose transforms round all outputs by the size of the largest input.
    """
    return not _on_graphics_card(backend)


def masks_within_rows(backend: Backend, op: Op) -> bool:
    """Whether a tile's masked products keep out what other steps of the same row hold, be it no number.

    A graphics card's tiles multiply them with zeros. To look for them first would hold it up.
    """
    return not _on_graphics_card(backend) or op.name not in TILED


def _on_graphics_card(backend: Backend) -> bool:
    return backend.device in ("cuda", "rocm")


def steps_of(op: Op, sample: Sample) -> list[str]:
    """The names of the floating arrays that are given step by step: (B, L, ...)."""
    rows = rows_of(op, sample)
    return [name for name, array in sample.arrays.items() if name in _by_step(op.name) and np.shape(array)[:2] == rows]


@functools.cache
def _by_step(op_name: str) -> frozenset[str]:
    """Those that are in a sample of several steps: with few, other arrays may happen to have the same shape."""
    op = OPS[op_name]
    samples = [s for s in op.samples(np.random.default_rng(0)) if rows_of(op, s)[1] > 8]
    given = {name for s in samples for name, array in s.arrays.items() if np.shape(array)[:2] == rows_of(op, s)}
    return frozenset(given) - op.no_grad


def rows_of(op: Op, sample: Sample) -> tuple[int, int]:
    """Batch and length."""
    batch, length = np.shape(sample.arrays[op.arrays[0]])[:2]
    return batch, length


def poisoned(op: Op, sample: Sample) -> Iterator[Poisoned]:
    """What may be poisoned in a sample: padding, every other document, later steps."""
    batch, length = rows_of(op, sample)
    steps, none = np.arange(length), np.zeros(batch, bool)
    lengths = np.asarray(sample.arrays.get("lengths", np.full(batch, length)))
    real = steps < lengths[:, None]
    starts = sample.arrays.get("reset")
    if "position" in sample.arrays:
        starts = np.asarray(sample.arrays["position"]) == 0
    if "lengths" in sample.arrays and not real.all():
        yield Poisoned(sample, ~real, real, none, ~none, True, "padding")
    if starts is not None:
        number = np.cumsum(np.asarray(starts) & real, axis=1)
        for parity in (0, 1):
            other = (number % 2 == parity) | ~real
            last = number[:, -1] if length else np.zeros(batch, int)
            yield Poisoned(sample, other, ~other, none | (parity == 0), last % 2 != parity, False, "other documents")
    cut = length // 2
    if cut and starts is None:
        later = np.broadcast_to(steps >= cut, (batch, length))
        yield Poisoned(sample, later, ~later & real, none, none, False, "later steps")


def _spread(mask: np.ndarray, array: np.ndarray) -> np.ndarray:
    """A mask of rows or steps over an array that begins with them."""
    wide = mask.reshape(*mask.shape, *(1,) * (array.ndim - mask.ndim))
    return np.broadcast_to(wide, array.shape)


def _gradient_of(
    backend: Backend, F: OpTable, op: Op, sample: Sample, weights: list[np.ndarray]
) -> Callable[[Sample], dict[str, np.ndarray]]:
    """A function of samples of one shape: the gradients of Σ weights * outputs, over the outputs that have any weight.

    One function for all of them, so that a backend that compiles does so once.
    """
    fixed = {n: a for n, a in to_backend(backend, sample, "float32").items() if n in op.no_grad}
    masks = [backend.asarray(w, "float32") for w in weights]
    used = [backend.asarray(w != 0) for w in weights]

    def projection(params: dict[str, Any]) -> Any:
        every = {**params, **fixed}
        outputs = as_tuple(getattr(F, op.name)(*(every.get(n) for n in op.arrays), **sample.attrs))
        # Not a product with zero: what has no weight may be anything.
        terms = zip(masks, used, outputs, strict=True)
        return sum(F.xp.sum(w * F.xp.where(u, value, F.xp.zeros_like(value))) for w, u, value in terms)

    run = backend.value_and_grad(projection)

    def gradients(sample: Sample) -> dict[str, np.ndarray]:
        arrays = to_backend(backend, sample, "float32")
        _, grads = run({n: a for n, a in arrays.items() if n not in op.no_grad})
        return {name: backend.to_numpy(g).astype(np.float64) for name, g in grads.items()}

    return gradients
