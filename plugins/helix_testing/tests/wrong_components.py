"""Components with one fault each, which the conformance kit must find."""

import numpy as np

from helix_core.kinds.layer import Layer
from helix_core.kinds.optimizer import Optimizer, OptimizerConfig
from helix_core.kinds.params import ParamSpec, constant, fan_in
from helix_core.reference.backend import ReferenceBackend


class Right(Layer):
    """A gated recurrence without a fault."""

    def params(self):
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
    def params(self):
        return {**super().params(), "unused": ParamSpec((3,), constant(1.0))}

    def apply(self, F, p, x, *, state=None, reset=None, lengths=None):
        y, after = super().apply(F, p, x, state=state, reset=reset, lengths=lengths)
        return y + 0 * F.xp.sum(p["unused"]), after


class Coupled(Optimizer):
    """Weight decay through the gradient."""

    slots = ("m",)

    def step(self, F, p, g, moments, *, lr, decay, step):
        m = 0.9 * moments[0] + g + self.config.weight_decay * p
        return p - lr * m, (m,)


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
