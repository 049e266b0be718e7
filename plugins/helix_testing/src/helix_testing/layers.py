"""The layer kit: both faces agree, causality, padding, packing, chunks and gradients, on every installed backend.

The invariants on padding and packing are those that recurrent models in the big libraries break (see
docs/layers.md): whatever a batch looks like, each document must come out as if it had been run alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from helix_core.errors import ConfigError
from helix_core.plugin_system import components, create, explain
from helix_core.tree import tree_items
from helix_testing.counting import count
from helix_testing.layer_case import INPUTS, Case, ModelCase
from helix_testing.levels.apart import share_memory
from helix_testing.levels.base import assert_close
from helix_testing.levels.isolation import rounds_in_order

LENGTH = 70

POISONS = (float("nan"), float("inf"), 1e30)
"""What stands, with either sign, where nothing may be read."""

WHERE_TRACED = {
    "test_it_computes_what_the_references_do",
    "test_step_by_step_equals_all_at_once",
    "test_packing_padding_and_chunks_together",
    "test_of_nothing_comes_nothing",
    "test_every_parameter_has_the_gradient_of_the_function",
}
"""What is asked, of the first of `configs`, on backends that compile for every new shape: minutes for all the rest.

A layer is made of ops, whose kit asks everything of every backend.
"""

QUIET = np.errstate(all="ignore")  # what comes of it where it stands is not looked at


class BaseLayerTests:
    """Set `layer` to its name and `configs` to options that cover its variants, `d_model` among them.

    backends  names to run on; default: the reference in float64 and every usable backend in float32; those that
              compile for every shape get a part of the kit, in tests marked slow
    """

    layer: ClassVar[str] = ""
    configs: ClassVar[Sequence[Mapping[str, Any]]] = ()
    backends: ClassVar[Sequence[str]] = ()

    @classmethod
    def helix_parametrize(cls, metafunc: pytest.Metafunc) -> None:
        names = list(cls.backends) or usable_backends()
        if "layer_case" in metafunc.fixturenames:
            everywhere = metafunc.function.__name__ in WHERE_TRACED
            traced = {name for name in names if traces(name)}
            values = [
                pytest.param(
                    (cls.layer, config, name),
                    marks=[pytest.mark.slow] if name in traced else [],
                    id=f"{name}-{_label(config)}",
                )
                for i, config in enumerate(cls.configs)
                for name in names
                if name not in traced or (everywhere and i == 0)
            ]
            metafunc.parametrize("layer_case", values, indirect=True, scope="class")
        elif "config" in metafunc.fixturenames:
            metafunc.parametrize("config", cls.configs, ids=map(_label, cls.configs))

    @pytest.fixture
    def x(self, layer_case: Case, rng: np.random.Generator) -> np.ndarray:
        """A batch of three rows (3, LENGTH, D)."""
        return rng.normal(size=(3, LENGTH, layer_case.d_model))

    # What it says about itself.

    def test_unknown_options_are_refused(self, config: Mapping[str, Any]) -> None:
        with pytest.raises(ConfigError, match="no_such_option"):
            create("layer", self.layer, **config, no_such_option=1)

    def test_a_seed_fixes_the_parameters(self, config: Mapping[str, Any]) -> None:
        from helix_core.kinds.params import init_params

        specs = create("layer", self.layer, **config).param_specs()
        first, again, other = (init_params(specs, seed) for seed in (0, 0, 1))
        assert all(np.array_equal(first[k], again[k]) for k in specs)
        assert any(not np.array_equal(first[k], other[k]) for k in specs)
        assert all(np.isfinite(v).all() for v in first.values())

    def test_the_state_is_a_plain_tree_with_the_batch_first(self, layer_case: Case) -> None:
        state = layer_case.init_state(3)
        leaves = dict(tree_items(state))
        if layer_case.layer.reach == 0:
            assert not leaves, "a layer that treats every step on its own has no state"
        else:
            assert leaves, "a recurrent layer has a state"
        assert all(layer_case.numpy(a).shape[0] == 3 for a in leaves.values())
        _, after = layer_case.run(np.zeros((3, 2, layer_case.d_model)), state)
        assert {k: layer_case.numpy(a).shape for k, a in tree_items(after)} == {
            k: layer_case.numpy(a).shape for k, a in leaves.items()
        }

    # What it costs.

    def test_its_cost_is_what_it_computes(self, config: Mapping[str, Any]) -> None:
        """A layer that mixes steps by something else than ops with `flops` overrides this with a count of its own."""
        layer = create("layer", self.layer, **config)
        for length in (1, 24):
            cost = layer.cost(length)
            counted = count(layer, length) / length
            assert cost.forward_flops == pytest.approx(counted, rel=1e-9), f"{length} tokens at once"
            counted = count(layer, 1, before=length)
            assert cost.step_flops == pytest.approx(counted, rel=1e-9), f"the token after {length} others"

    def test_its_state_is_as_large_as_it_says(self, layer_case: Case, x: np.ndarray) -> None:
        for length in (1, LENGTH):
            _, state = layer_case.run(x[:1, :length], layer_case.init_state(1))
            itemsize = 8 if layer_case.dtype == "float64" else 4
            # Counters, whole numbers of their own size, are few: they are said to be as large as the others.
            arrays = [layer_case.numpy(leaf) for _, leaf in tree_items(state)]
            real = sum(a.nbytes if a.dtype.kind == "f" else a.size * itemsize for a in arrays)
            assert layer_case.layer.cost(length, itemsize=itemsize).state_bytes == real

    # What it leaves alone.

    def test_it_writes_to_nothing_and_remembers_nothing(self, layer_case: Case, x: np.ndarray) -> None:
        case = layer_case
        given, state = case.backend.asarray(x, case.dtype), case.init_state(3)
        before = case.copies({"x": given, "state": state, "params": case.params})
        with case.backend.inference():
            y, after = case.layer.apply(case.F, case.params, given, state=state)
            first = case.copies({"y": y, "state": after})
            case.layer.apply(case.F, case.params, case.backend.asarray(x[::-1] * 0.5, case.dtype), state=after)
            again = case.copies(
                dict(zip(("y", "state"), case.layer.apply(case.F, case.params, given, state=state), strict=True))
            )
        now = case.copies({"x": given, "state": state, "params": case.params})
        for name, value in before.items():
            assert np.array_equal(now[name], value), f"it wrote to {name}"
        for name, value in first.items():
            assert np.array_equal(again[name], value), f"{name} depends on calls in between"
        for name, value in case.copies({"y": y, "state": after}).items():
            assert np.array_equal(value, first[name]), f"a later call wrote to {name}"
        assert not share_memory(y, given), "y is the memory of x"

    def test_dtypes_stay_as_they_are(self, layer_case: Case, x: np.ndarray) -> None:
        case, state = layer_case, layer_case.init_state(3)
        with case.backend.inference():
            for inputs in (x, x[:, :1]):
                before = {name: str(a.dtype) for name, a in tree_items(state)}
                given = case.backend.asarray(inputs, case.dtype)
                y, state = case.layer.apply(case.F, case.params, given, state=state)
                assert y.dtype == given.dtype, f"x is {given.dtype}, y is {y.dtype}"
                assert {name: str(a.dtype) for name, a in tree_items(state)} == before

    def test_nan_comes_out_where_it_counts(self, layer_case: Case, x: np.ndarray, rng: np.random.Generator) -> None:
        """In its own row, wherever the value that it stands for makes a difference; in no other row."""
        at = (1, int(rng.integers(LENGTH // 2)), int(rng.integers(layer_case.d_model)))
        moved, poisoned = x.copy(), x.copy()
        moved[at] += 0.5
        poisoned[at] = np.nan
        with np.errstate(invalid="ignore"):
            found = layer_case.parallel(poisoned)
        before = layer_case.exact(x)
        depends = np.abs(layer_case.exact(moved) - before) > 1e-6 * np.abs(before).max()
        assert depends.any()
        assert np.isnan(found[depends]).all(), "a NaN in x does not come out"
        assert np.isfinite(found[[0, 2]]).all(), "a NaN reaches other rows"

    # Two faces of one function.

    def test_it_computes_what_the_references_do(self, layer_case: Case, x: np.ndarray) -> None:
        assert_close(layer_case.parallel(x), layer_case.exact(x), 10 * layer_case.tolerance, "beside the oracle, y")

    def test_step_by_step_equals_all_at_once(self, layer_case: Case, x: np.ndarray) -> None:
        state, steps = layer_case.init_state(3), []
        for t in range(LENGTH):
            y, state = layer_case.run(x[:, t : t + 1], state)
            steps.append(y)
        assert_close(np.concatenate(steps, 1), layer_case.parallel(x), layer_case.tolerance, "the recurrent face")

    def test_prefill_in_ragged_chunks_and_then_steps(self, layer_case: Case, x: np.ndarray) -> None:
        state, parts, begin = layer_case.init_state(3), [], 0
        for width in (1, 17, 2, 33, 15, 1, 1):
            y, state = layer_case.run(x[:, begin : begin + width], state)
            parts.append(y)
            begin += width
        assert begin == LENGTH
        whole, last = layer_case.run(x, layer_case.init_state(3))
        assert_close(np.concatenate(parts, 1), whole, layer_case.tolerance, "prefill in chunks")
        layer_case.assert_states_close(state, last)

    def test_one_token_alone(self, layer_case: Case, x: np.ndarray) -> None:
        y, _ = layer_case.run(x[:, :1], layer_case.init_state(3))
        assert_close(y, layer_case.parallel(x[:, :1]), layer_case.tolerance, "one token")
        assert_close(y, layer_case.parallel(x)[:, :1], layer_case.tolerance, "the first of many")

    # Time.

    def test_the_future_does_not_reach_the_past(
        self, layer_case: Case, x: np.ndarray, rng: np.random.Generator
    ) -> None:
        changed = x.copy()
        changed[:, 40:] = rng.normal(size=changed[:, 40:].shape)
        before, after = layer_case.parallel(x), layer_case.parallel(changed)
        assert_close(after[:, :40], before[:, :40], layer_case.tolerance / 10, "outputs before a changed token")
        assert np.max(np.abs(after[:, 40:] - before[:, 40:])) > 1e-3

    def test_the_past_reaches_the_future(self, layer_case: Case, x: np.ndarray) -> None:
        changed = x.copy()
        changed[:, 0] += 1.0
        difference = np.abs(layer_case.exact(changed) - layer_case.exact(x)).max(axis=(0, 2))
        scale = np.abs(layer_case.exact(x)).max()
        reach = LENGTH - 1 if layer_case.layer.reach is None else min(layer_case.layer.reach, LENGTH - 1)
        assert difference[min(reach, 1)] > 1e-6 * scale
        assert difference[reach] > 1e-10 * scale, f"token 0 does not reach token {reach}"
        # Rounding alone: a product over all tokens may round one otherwise when another has changed.
        beyond = difference[reach + 1 :].max(initial=0.0)
        assert beyond <= 1e-12 * scale, f"token 0 reaches further than reach = {reach}"

    def test_rows_do_not_mix(self, layer_case: Case, x: np.ndarray) -> None:
        together = layer_case.parallel(x)
        for row in range(3):
            assert_close(
                layer_case.parallel(x[row : row + 1]),
                together[row : row + 1],
                layer_case.tolerance,
                f"row {row}",
            )

    # Batches as they come.

    def test_right_padding_changes_nothing(self, layer_case: Case, x: np.ndarray, rng: np.random.Generator) -> None:
        lengths = np.array([LENGTH, 1, 41])
        padded, state = layer_case.run(x, layer_case.init_state(3), lengths=lengths)
        following = rng.normal(size=(3, 1, layer_case.d_model))
        next_padded, _ = layer_case.run(following, state)
        for row, n in enumerate(lengths):
            alone, last = layer_case.run(x[row : row + 1, :n], layer_case.init_state(1))
            assert_close(padded[row : row + 1, :n], alone, layer_case.tolerance, f"row of {n}")
            layer_case.assert_states_close(layer_case.row(state, row), last)
            step, _ = layer_case.run(following[row : row + 1], last)
            assert_close(next_padded[row : row + 1], step, layer_case.tolerance, f"the step after a row of {n}")

    def test_an_empty_row_keeps_its_state(self, layer_case: Case, x: np.ndarray) -> None:
        _, state = layer_case.run(x, layer_case.init_state(3))
        _, after = layer_case.run(x, state, lengths=np.array([0, LENGTH, 0]))
        for row in (0, 2):
            layer_case.assert_states_close(layer_case.row(after, row), layer_case.row(state, row))

    @pytest.mark.parametrize("with_state", [False, True], ids=["parallel", "recurrent"])
    def test_packed_documents_do_not_leak(self, layer_case: Case, x: np.ndarray, with_state: bool) -> None:
        sizes = [5, 1, 2, 30, 32]
        starts = np.cumsum([0, *sizes])
        reset = np.zeros((3, LENGTH), bool)
        reset[:, starts[:-1]] = True
        state = layer_case.init_state(3) if with_state else None
        packed, last = layer_case.run(x, state, reset=reset)
        for begin, end in itertools.pairwise(starts):
            alone = layer_case.parallel(x[:, begin:end])
            assert_close(packed[:, begin:end], alone, layer_case.tolerance, f"document {begin}:{end}")
        if with_state:
            _, alone_state = layer_case.run(x[:, starts[-2] :], layer_case.init_state(3))
            layer_case.assert_states_close(last, alone_state)

    def test_a_reset_at_the_first_step_drops_the_carried_state(self, layer_case: Case, x: np.ndarray) -> None:
        _, dirty = layer_case.run(x, layer_case.init_state(3))
        reset = np.zeros((3, LENGTH), bool)
        reset[:, 0] = True
        y, state = layer_case.run(x, dirty, reset=reset)
        clean, last = layer_case.run(x, layer_case.init_state(3))
        assert_close(y, clean, layer_case.tolerance, "after a reset")
        layer_case.assert_states_close(state, last)

    def test_packing_padding_and_chunks_together(self, layer_case: Case, x: np.ndarray) -> None:
        """Two chunks of rows that end differently and in which documents start at different places."""
        first_lengths, second_lengths = np.array([20, 11, 3]), np.array([30, 0, 17])
        resets = [[7], [0, 5], []], [[3, 29], [], [0]]
        chunks = x[:, :20], x[:, 20:50]
        state: Any = layer_case.init_state(3)
        outputs = []
        for chunk, lengths, places in zip(chunks, (first_lengths, second_lengths), resets, strict=True):
            reset = np.zeros(chunk.shape[:2], bool)
            for row, at in enumerate(places):
                reset[row, at] = True
            y, state = layer_case.run(chunk, state, reset=reset, lengths=lengths)
            outputs.append(y)
        for row in range(3):
            pieces = [outputs[i][row, :n] for i, n in enumerate((first_lengths[row], second_lengths[row]))]
            found = np.concatenate(pieces)
            inputs = np.concatenate([chunks[0][row, : first_lengths[row]], chunks[1][row, : second_lengths[row]]])
            starts = [*resets[0][row], *(first_lengths[row] + at for at in resets[1][row])]
            bounds = sorted({0, *starts, len(inputs)})
            for begin, end in itertools.pairwise(bounds):
                alone, last = layer_case.run(inputs[None, begin:end], layer_case.init_state(1))
                assert_close(found[None, begin:end], alone, layer_case.tolerance, f"row {row}, document {begin}:{end}")
            layer_case.assert_states_close(layer_case.row(state, row), last)

    @pytest.mark.parametrize("where", ["left", "right", "anywhere"])
    def test_masked_tokens_are_as_if_not_there(self, layer_case: Case, rng: np.random.Generator, where: str) -> None:
        model = ModelCase(layer_case)
        tokens = rng.integers(16, size=(3, 40))
        mask = np.zeros((3, 40), bool)
        for row, n in enumerate((40, 25, 1)):
            at = {"left": range(40 - n, 40), "right": range(n), "anywhere": rng.permutation(40)[:n]}[where]
            mask[row, list(at)] = True
        found, state = model.run(tokens, mask=mask)
        for row in range(3):
            alone, last = model.run(tokens[row : row + 1, mask[row]])
            assert_close(found[row : row + 1, mask[row]], alone, layer_case.tolerance, f"{where}-padded row {row}")
            layer_case.assert_states_close(layer_case.row(state, row), last)

    # Isolation: what may not be read may be anything.

    @QUIET
    def test_what_padding_holds_reaches_nothing(self, layer_case: Case, x: np.ndarray) -> None:
        lengths = np.array([LENGTH, 1, 41])
        real = np.arange(LENGTH) < lengths[:, None]
        clean, state = layer_case.run(x, layer_case.init_state(3), lengths=lengths)
        for value in POISONS:
            found, after = layer_case.run(poisoned(x, ~real, value), layer_case.init_state(3), lengths=lengths)
            assert_close(found[real], clean[real], layer_case.tolerance, f"outputs with {value} in padding")
            layer_case.assert_states_close(after, state)

    @QUIET
    def test_what_padding_holds_reaches_no_gradient(
        self, layer_case: Case, x: np.ndarray, rng: np.random.Generator
    ) -> None:
        if "grad" not in layer_case.backend.capabilities:
            pytest.skip(f"not implemented: {layer_case.backend.name} does not declare 'grad'")
        lengths = np.array([LENGTH, 1, 41])
        real = np.arange(LENGTH) < lengths[:, None]
        weights = np.where(real[..., None], rng.normal(size=x.shape), 0.0)
        gradients = layer_case.gradient_of_some(weights, lengths=lengths)
        clean = gradients(x)
        for value in POISONS:
            found = gradients(poisoned(x, ~real, value))
            assert not found[INPUTS][~real].any(), f"padding with {value} has a gradient"
            for name, grad in found.items():
                assert_close(grad, clean[name], layer_case.tolerance, f"gradient of {name} with {value} in padding")

    @pytest.mark.parametrize("odd", [0, 1], ids=["even", "odd"])
    @pytest.mark.parametrize("with_state", [False, True], ids=["parallel", "recurrent"])
    @QUIET
    def test_what_other_documents_hold_reaches_nothing(
        self, layer_case: Case, x: np.ndarray, with_state: bool, odd: int
    ) -> None:
        """Every other document is poisoned, and with the first of them the state that comes before it."""
        reset, other = documents(odd)
        state = layer_case.init_state(3) if with_state else None
        clean, last = layer_case.run(x, state, reset=reset)
        for value in POISONS:
            before = state
            if with_state and not odd:
                _, before = layer_case.run(poisoned(x, np.ones_like(other), value), state)
            found, after = layer_case.run(poisoned(x, other, value), before, reset=reset)
            assert_close(found[~other], clean[~other], layer_case.tolerance, f"outputs with {value} in other documents")
            if with_state and not other[0, -1]:
                layer_case.assert_states_close(after, last)

    @pytest.mark.parametrize("odd", [0, 1], ids=["even", "odd"])
    @QUIET
    def test_what_other_documents_hold_reaches_no_gradient(
        self, layer_case: Case, x: np.ndarray, rng: np.random.Generator, odd: int
    ) -> None:
        """Of the inputs. A weight is multiplied with other documents too, and has no gradient where they have none."""
        if "grad" not in layer_case.backend.capabilities:
            pytest.skip(f"not implemented: {layer_case.backend.name} does not declare 'grad'")
        reset, other = documents(odd)
        weights = np.where(other[..., None], 0.0, rng.normal(size=x.shape))
        gradients = layer_case.gradient_of_some(weights, reset=reset)
        clean = gradients(x)[INPUTS]
        for value in POISONS:
            found = gradients(poisoned(x, other, value))[INPUTS]
            assert_close(
                found[~other], clean[~other], layer_case.tolerance, f"gradient of x with {value} in other documents"
            )

    @pytest.mark.parametrize("with_state", [False, True], ids=["parallel", "recurrent"])
    @QUIET
    def test_what_later_steps_hold_reaches_nothing(self, layer_case: Case, x: np.ndarray, with_state: bool) -> None:
        if not layer_case.layer.causal:
            pytest.skip("not causal")
        later = np.broadcast_to(np.arange(LENGTH) >= 25, (3, LENGTH))
        state = layer_case.init_state(3) if with_state else None
        clean, _ = layer_case.run(x, state)
        for value in (*POISONS, 1e4):
            if np.isfinite(value) and not rounds_in_order(layer_case.backend):
                continue
            found, _ = layer_case.run(poisoned(x, later, value), state)
            assert_close(found[~later], clean[~later], layer_case.tolerance, f"outputs before {value}")

    # Nothing at all.

    @pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (0, 0)])
    def test_of_nothing_comes_nothing(self, layer_case: Case, x: np.ndarray, batch: int, length: int) -> None:
        nothing = x[:batch, :length]
        rows = {"reset": np.zeros((batch, length), bool), "lengths": np.full(batch, length)}
        for extra in ({}, rows):
            assert layer_case.run(nothing, **extra)[0].shape == nothing.shape
        if layer_case.layer.causal:
            before = layer_case.init_state(batch)
            if batch:
                _, before = layer_case.run(x[:batch], before)
            for extra in ({}, rows):
                y, state = layer_case.run(nothing, before, **extra)
                assert y.shape == nothing.shape
                layer_case.assert_states_close(state, before)
        if "grad" in layer_case.backend.capabilities:
            for grad in layer_case.gradient_of_some(np.ones(nothing.shape))(nothing).values():
                assert not grad.any(), "a sum of nothing has a gradient"

    # Learning.

    def test_every_parameter_has_the_gradient_of_the_function(
        self, layer_case: Case, x: np.ndarray, rng: np.random.Generator
    ) -> None:
        if "grad" not in layer_case.backend.capabilities:
            pytest.skip(f"not implemented: {layer_case.backend.name} does not declare 'grad'")
        x = x[:2, :12]
        weights = rng.normal(size=x.shape)
        grads = layer_case.gradients(x, weights)
        for name, grad in grads.items():
            assert np.isfinite(grad).all(), f"the gradient of {name} is not finite"
            assert np.abs(grad).max() > 0, f"{name} has no gradient"
            direction = rng.normal(size=grad.shape) * layer_case.scale_of(name)
            expected = layer_case.difference(name, direction, x, weights)
            found = float(np.sum(grad * direction))
            scale = max(float(np.sum(np.abs(grad * direction))), 1e-3)
            assert abs(found - expected) < 1e-3 * scale, f"the gradient of {name} is off: {found} for {expected}"

    def test_it_overfits(self, layer_case: Case, rng: np.random.Generator) -> None:
        if "grad" not in layer_case.backend.capabilities:
            pytest.skip(f"not implemented: {layer_case.backend.name} does not declare 'grad'")
        tokens = rng.integers(16, size=(2, 17))
        if layer_case.layer.reach == 0:  # it can only learn what follows what
            tokens = (tokens[:, :1] + 5 * np.arange(17)) % 16
        losses = ModelCase(layer_case).overfit(tokens, steps=150)
        assert losses[-1] < 0.3 * losses[0], f"loss went from {losses[0]:.3f} to {losses[-1]:.3f} only"


def poisoned(x: np.ndarray, where: np.ndarray, value: float) -> np.ndarray:
    """x (B, L, D) with `value`, of either sign, at the steps `where` (B, L)."""
    signs = np.where(np.arange(x.size) % 3, 1.0, -1.0).reshape(x.shape)
    return np.where(where[..., None], signs * value, x)


def documents(odd: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the documents of three rows start, the first at step 5, and the steps of every other one of them (3, L)."""
    reset = np.zeros((3, LENGTH), bool)
    reset[:, [5, 6, 8, 38]] = True
    return reset, np.cumsum(reset, axis=1) % 2 == odd


def traces(backend: str) -> bool:
    """Whether a backend compiles everything for every new shape, which takes a second or two each time."""
    return any("traces" in c.descriptor.provides for c in components("backend") if backend in (c.full_name, c.name))


def usable_backends() -> list[str]:
    """The reference and every installed backend that works here."""
    names = [c.full_name for c in components("backend")]
    return [name for name in names if explain("backend", name).component is not None]


def _label(config: Mapping[str, Any]) -> str:
    return "-".join(f"{k}={v}" for k, v in config.items())
