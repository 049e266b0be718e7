"""1/f^alpha noise: white, pink, red and whatever is between."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import Sample
from helix_plugin_synthetic.series.series import Series, SeriesConfig


class PowerLawNoiseConfig(SeriesConfig):
    """Options of PowerLawNoise."""

    length: int = Field(512, ge=8, le=2**24, description="L, number of steps")
    exponent: float = Field(1.0, ge=-4, le=4, description="alpha: 0 white, 1 pink, 2 red (Brownian)")
    sigma: float = Field(1.0, gt=0, allow_inf_nan=False, description="standard deviation expected over a series")


class PowerLawNoise(Series[PowerLawNoiseConfig]):
    """Gaussian noise with power spectrum 1/f^alpha and mean 0, by inverse FFT (Timmer and Koenig, 1995).

    The series is periodic: its end continues at its beginning, so its periodogram has no leakage.

    >>> from helix_core import create
    >>> sample = create("generator", "power-law-noise", length=100, exponent=1).sample(0, 0)
    >>> sample["values"].shape, bool(abs(sample["values"].mean()) < 1e-6)
    ((100,), True)
    """

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        c = self.config
        n = c.length
        frequencies = np.arange(1, n // 2 + 1)
        scale = frequencies ** (-c.exponent / 2)
        parts = rng.standard_normal((2, len(frequencies)))
        if n % 2 == 0:
            parts[0, -1], parts[1, -1] = parts[0, -1] * np.sqrt(2), 0.0  # the Nyquist frequency is real
        spectrum = np.concatenate([[0.0], scale * (parts[0] + 1j * parts[1])])
        # Parseval: the expected variance of irfft(spectrum) is this sum.
        power = 2 * scale**2
        power[-1] *= 0.5 if n % 2 == 0 else 1.0
        variance = 2 * power.sum() / n**2
        return self.observe(rng, c.sigma / np.sqrt(variance) * np.fft.irfft(spectrum, n))
