"""Components with one fault each, which the conformance kit must find."""

import numpy as np

from helix_core.kinds.layer import Layer
from helix_core.kinds.optimizer import Optimizer, OptimizerConfig
from helix_core.kinds.params import ParamSpec, constant, fan_in
from helix_core.reference.numpy_backend import ReferenceBackend


class Right(Layer):
    """A gated recurrence without a fault."""

    def param_specs(self):
        D = self.config.d_model
        return {
            "gate.weight": ParamSpec((D, D), fan_in()),
            "gate.bias": ParamSpec((D,), constant(3.0)),
            "out.weight": ParamSpec((D, D), fan_in()),
        }

    def init_state(self, F, batch):
        return {"h": F.zeros(batch, self.config.d_model)}

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        f = F.sigmoid(F.linear(x, p["gate.weight"], p["gate.bias"]))
        h, last = F.linear_scan(f, (1 - f) * x, None if state is None else state["h"], reset, lengths)
        return F.linear(h, p["out.weight"]), None if state is None else {"h": last}


class IgnoresReset(Right):
    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        return super().apply(F, p, x, state=state, lengths=lengths)


class IgnoresLengths(Right):
    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        return super().apply(F, p, x, state=state, reset=reset)


class NotCausal(Right):
    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        return y + 0.01 * F.xp.mean(x, axis=1, keepdims=True), after


class ForgetsState(Right):
    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        fresh = None if state is None else self.init_state(F, x.shape[0])
        return super().apply(F, p, x, state=fresh, reset=reset, lengths=lengths)


class DoesNotMixTime(Right):
    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        return F.linear(F.silu(x), p["out.weight"]), state


class MixesRows(Right):
    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        return y + 0.01 * F.xp.mean(y, axis=0, keepdims=True), after


class DeadParameter(Right):
    def param_specs(self):
        return {**super().param_specs(), "unused": ParamSpec((3,), constant(1.0))}

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        return y + 0 * F.xp.sum(p["unused"]), after


class WritesState(Right):
    """Decays the state that it was given, in place."""

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        if state is not None:
            state["h"][...] = after["h"]
        return y, after


class Remembers(Right):
    """Adds a little of what it said in its last call."""

    said = 0.0

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        if state is not None:
            y, self.said = y + 1e-3 * self.said, F.xp.sum(y)
        return y, after


class HandsOnInput(Right):
    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        return x, super().apply(F, p, x, state=state, reset=reset, lengths=lengths)[1]


class SwallowsNaN(Right):
    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        return F.xp.where(F.xp.isnan(y), F.xp.zeros_like(y), y), after


class SpreadsNaN(Right):
    """To all rows: nothing times NaN is NaN."""

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        return y + 0 * F.xp.sum(x), after


class Widens(Right):
    """Computes and answers in float64, whatever it was given."""

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        return F.xp.astype(y, F.xp.float64), after


class WidensState(Right):
    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        given = None if state is None else {"h": F.xp.astype(state["h"], x.dtype)}
        y, after = super().apply(F, p, x, state=given, reset=reset, lengths=lengths)
        return y, None if after is None else {"h": F.xp.astype(after["h"], F.xp.float64)}


class OtherOnTorch(Right):
    """One percent off where it runs on torch."""

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        return (1.01 * y if F.dispatch_key.namespace == "torch" else y), after


class Coupled(Optimizer):
    """Weight decay through the gradient."""

    slots = ("m",)

    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        m = 0.9 * moments[0] + g + self.config.weight_decay * p
        return p - lr * m, (m,)


class Plain(Optimizer):
    """Momentum without a fault."""

    slots = ("m",)

    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        m = 0.9 * moments[0] + g
        return p * (1 - lr * weight_decay) - lr * m, (m,)


class IgnoresRate(Plain):
    """Its own rate, whatever the schedule says."""

    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        return super().step(F, p, g, moments, lr=self.config.lr, weight_decay=weight_decay, step=step)


class WidensOptimizer(Plain):
    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        p, (m,) = super().step(F, p, g, moments, lr=lr, weight_decay=weight_decay, step=step)
        return p, (m * np.ones((), np.float64),)


class KeepsGradient(Plain):
    """The gradient's own memory becomes the first moment."""

    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        p, (m,) = super().step(F, p, g, moments, lr=lr, weight_decay=weight_decay, step=step)
        return p, (g if step == 1 else m,)


class DonatedDiffers(Plain):
    """Decay is lost where it may write over the parameter."""

    def step_donated(self, F, name, p, g, moments, *, lr, weight_decay, step):
        return self.step(F, p, g, moments, lr=lr, weight_decay=0.0, step=step)


class ByPlace(Plain):
    """The first parameter moves faster."""

    def update(self, F, params, grads, state, *, lr_scale=None, **options):
        first = next(iter(params))
        scale = {**(lr_scale or {}), first: 2 * (lr_scale or {}).get(first, 1.0)}
        return super().update(F, params, grads, state, lr_scale=scale, **options)


class ChangesShape(Plain):
    """A slot that grows with every step."""

    def init_slots(self, F, name, p):
        return {"m": F.xp.zeros((1, *p.shape), dtype=p.dtype)}

    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        after, (m,) = super().step(F, p, g, (moments[0][-1],), lr=lr, weight_decay=weight_decay, step=step)
        return after, (F.xp.concat([moments[0], m[None]], axis=0),)


class Counts(Plain):
    """Keeps a number of its own, which no checkpoint holds."""

    count = 0

    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        self.count += 1
        return super().step(F, p, g, moments, lr=lr / self.count, weight_decay=weight_decay, step=step)


class MatricesStandStill(Plain):
    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        if len(p.shape) > 1:
            return p * (1 - lr * weight_decay) + 0 * lr * g, (0.9 * moments[0] + g,)
        return super().step(F, p, g, moments, lr=lr, weight_decay=weight_decay, step=step)


class CoupledConfig(OptimizerConfig):
    lr: float = 0.05


class SiluOff(ReferenceBackend):
    """silu wrong in the third digit."""

    name = "silu-off"

    def bind(self, **options):
        table = super().bind(**options)
        right = table.silu
        table.silu = lambda x: right(x) * 1.001
        return table


class WritesInputs(ReferenceBackend):
    """softmax in place."""

    name = "writes-inputs"

    def bind(self, **options):
        table = super().bind(**options)
        right = table.softmax

        def softmax(x):
            result = right(x)
            x[...] = result
            return result

        table.softmax = softmax
        return table


class Boastful(ReferenceBackend):
    """Declares gradients that it does not have."""

    name = "boastful"
    capabilities = frozenset({"float64", "grad"})


class Bakes(ReferenceBackend):
    """Its compiler takes the first parameters for constants."""

    name = "bakes"
    capabilities = frozenset({"float64", "compile"})

    def compile(self, function):
        first = []

        def run(params, *args):
            first.append(params)
            return function(first[0], *args)

        return run


class AddsUp(ReferenceBackend):
    """A gradient of w * w that is added up from call to call."""

    name = "adds-up"
    capabilities = frozenset({"float64", "grad"})

    def value_and_grad(self, function):
        total = {}

        def run(params, *args):
            for name, value in params.items():
                total[name] = total.get(name, 0.0) + 2 * value
            return function(params, *args), dict(total)

        return run


class WrongGradient(ReferenceBackend):
    """Central differences, all of them one percent too large."""

    name = "wrong-gradient"
    capabilities = frozenset({"float64", "grad"})

    def value_and_grad(self, function):
        def run(params, *args):
            params = {k: np.asarray(v, np.float64) for k, v in params.items()}
            grads = {}
            for name, value in params.items():
                grads[name] = np.zeros_like(value)
                for i in np.ndindex(value.shape):
                    moved = value.copy()
                    moved[i] += 1e-5
                    up = function({**params, name: moved}, *args)
                    moved[i] -= 2e-5
                    grads[name][i] = 1.01 * (up - function({**params, name: moved}, *args)) / 2e-5
            return function(params, *args), grads

        return run
