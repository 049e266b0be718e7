"""Adafactor and Muon as a stranger would write them: slots of shapes of their own, and rules that go by name."""

from pydantic import Field

from helix_core.kinds.optimizer import Optimizer, OptimizerConfig


class AdafactorConfig(OptimizerConfig):
    lr: float = Field(1e-2, gt=0)
    decay_rate: float = Field(0.8, gt=0)
    clip: float = Field(1.0, gt=0)


class Adafactor(Optimizer[AdafactorConfig]):
    """Second moments of a matrix as a row and a column: V = r cᵀ / mean(r), p <- p - lr g / sqrt(V), clipped by size.

    Source: Shazeer and Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, 2018, without momentum and
    with the learning rate of the schedule.
    """

    slots = ("row", "column", "v")

    def init_slots(self, F, name, p):
        if len(p.shape) < 2:
            return {"v": F.xp.zeros_like(p)}
        return {"row": F.xp.zeros_like(p[..., 0]), "column": F.xp.zeros_like(p[..., 0, :])}

    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        xp = F.xp
        beta = 1 - step**-self.config.decay_rate
        squares = g * g + 1e-30
        if len(p.shape) < 2:
            v = beta * moments[0] + (1 - beta) * squares
            after, direction = (v,), g / xp.sqrt(v)
        else:
            row = beta * moments[0] + (1 - beta) * xp.mean(squares, axis=-1)
            column = beta * moments[1] + (1 - beta) * xp.mean(squares, axis=-2)
            share = row / xp.mean(row, axis=-1, keepdims=True)
            after, direction = (row, column), g / xp.sqrt(share[..., None]) / xp.sqrt(column[..., None, :])
        size = xp.sqrt(xp.mean(direction * direction))
        direction = direction / xp.maximum(size / self.config.clip, xp.ones_like(size))
        return p * (1 - lr * weight_decay) - lr * direction, after


class MuonConfig(OptimizerConfig):
    lr: float = Field(2e-2, gt=0)
    momentum: float = Field(0.95, ge=0, lt=1)
    adamw_scale: float = Field(0.2, gt=0, description="rate of the parameters that AdamW trains, as a share of `lr`")


class Muon(Optimizer[MuonConfig]):
    """Hidden matrices move along the orthogonal factor of their momentum; embedding, head and vectors by AdamW.

    Source: Jordan, Muon: An optimizer for hidden layers in neural networks, 2024.
    """

    slots = ("momentum", "m", "v")

    def hidden(self, name, p):
        return len(p.shape) == 2 and not name.startswith(("embedding", "head"))

    def init_slots(self, F, name, p):
        slots = ("momentum",) if self.hidden(name, p) else ("m", "v")
        return {slot: F.xp.zeros_like(p) for slot in slots}

    def step_named(self, F, name, p, g, moments, *, lr, weight_decay, step):
        if not self.hidden(name, p):
            return self.step(F, p, g, moments, lr=lr * self.config.adamw_scale, weight_decay=weight_decay, step=step)
        (buffer,) = moments
        buffer = self.config.momentum * buffer + g
        direction = orthogonal(F.xp, g + self.config.momentum * buffer)
        scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
        return p * (1 - lr * weight_decay) - lr * scale * direction, (buffer,)

    def step(self, F, p, g, moments, *, lr, weight_decay, step):
        p, m, v = F.adamw(p, g, *moments, lr=lr, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=weight_decay, step=step)
        return p, (m, v)


def orthogonal(xp, matrix):
    """The orthogonal factor of a matrix, roughly: five Newton-Schulz steps."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = xp.matrix_transpose(matrix) if tall else matrix
    x = x / (xp.sqrt(xp.sum(x * x)) + 1e-7)
    for _ in range(5):
        gram = x @ xp.matrix_transpose(x)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return xp.matrix_transpose(x) if tall else x
