"""Autoregressive moving-average processes, integrated if wanted."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import Sample
from helix_plugin_synthetic.series.series import Series, SeriesConfig

SLOWEST = 0.995


class ARMAConfig(SeriesConfig):
    """Options of ARMA."""

    ar: tuple[float, ...] = Field((0.6, -0.2), description="phi_1 .. phi_p")
    ma: tuple[float, ...] = Field((0.3,), description="theta_1 .. theta_q")
    sigma: float = Field(1.0, gt=0, allow_inf_nan=False, description="standard deviation of the innovations")
    integrate: int = Field(0, ge=0, le=2, description="how often the process is summed up: d of ARIMA(p, d, q)")

    @model_validator(mode="after")
    def _stationary(self) -> ARMAConfig:
        if (slowest := modulus(self.ar)) > SLOWEST:
            raise ValueError(f"ar has a root of modulus {slowest:.3f}; a stationary process needs <= {SLOWEST}")
        if (slowest := modulus([-theta for theta in self.ma])) > 1:
            raise ValueError(f"ma has a root of modulus {slowest:.3f}; an invertible process needs <= 1")
        return self


class ARMA(Series[ARMAConfig]):
    """x_t = sum phi_i x_{t-i} + e_t + sum theta_j e_{t-j}, e_t ~ N(0, sigma^2), stationary from the first step on.

    >>> from helix_core import create
    >>> sample = create("generator", "arma", length=100).sample(0, 0)
    >>> sample["values"].shape
    (100,)
    """

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        from scipy.signal import lfilter

        c = self.config
        slowest = modulus(c.ar)
        # The start from zero has died away to 1e-9 after so many steps.
        burn_in = len(c.ma) + (int(np.ceil(np.log(1e-9) / np.log(slowest))) if slowest > 1e-9 else len(c.ar))
        noise = c.sigma * rng.standard_normal(burn_in + c.length)
        values = lfilter([1.0, *c.ma], [1.0, *(-phi for phi in c.ar)], noise)[burn_in:]
        for _ in range(c.integrate):
            values = np.cumsum(values)
        return self.observe(rng, values)


def modulus(coefficients: object) -> float:
    """The largest modulus of the roots of z^p - c_1 z^{p-1} - ... - c_p: how slowly the filter forgets."""
    return float(np.abs(np.roots([1.0, *(-np.asarray(coefficients, float))])).max(initial=0.0))
