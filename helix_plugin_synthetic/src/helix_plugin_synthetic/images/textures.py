"""Textures: gratings, checkerboards, and noise with a power-law spectrum."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig, Sample

TEXTURES = ("grating", "checkerboard", "noise")


class TexturesConfig(GeneratorConfig):
    """Options of Textures."""

    size: int = Field(64, ge=16, le=4096, description="pixels per side")
    slowest: float = Field(4.0, gt=0, description="least cycles per image of gratings and checkerboards")
    fastest: float = Field(12.0, gt=0, description="most cycles per image")
    contrast: float = Field(0.8, gt=0, le=1)
    exponent: float = Field(2.0, ge=0, le=4, description="of the noise's power spectrum 1/f^alpha")

    @model_validator(mode="after")
    def _visible(self) -> TexturesConfig:
        if not self.slowest <= self.fastest < self.size / 2:
            raise ValueError(f"{self.size} pixels show slowest <= fastest < {self.size / 2} cycles")
        return self


class Textures(Generator[TexturesConfig]):
    """A grey image that is all grating, checkerboard or noise, with its frequency (cycles per image) and angle.

    >>> from helix_core import create
    >>> sample = create("generator", "textures", size=32).sample(0, 0)
    >>> {name: array.shape for name, array in sample.items()}
    {'image': (32, 32), 'label': (), 'frequency': (), 'angle': ()}
    """

    def schema(self) -> dict[str, FieldSpec]:
        S = self.config.size
        return {
            "image": FieldSpec("uint8", (S, S), "grey"),
            "label": FieldSpec("int64", (), f"index into {', '.join(TEXTURES)}"),
            "frequency": FieldSpec("float32", (), "cycles per image; 0 for noise"),
            "angle": FieldSpec("float32", (), "of the waves' normal, in radians, 0 to pi; 0 for noise"),
        }

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        c = self.config
        label = int(rng.integers(len(TEXTURES)))
        frequency, angle = rng.uniform(c.slowest, c.fastest), rng.uniform(0, np.pi)
        if TEXTURES[label] == "noise":
            frequency = angle = 0.0
            wave = _noise(rng, c.size, c.exponent)
        else:
            rows, columns = np.mgrid[: c.size, : c.size] / c.size
            along = rows * np.sin(angle) + columns * np.cos(angle)
            wave = np.sin(2 * np.pi * frequency * along + rng.uniform(0, 2 * np.pi))
            if TEXTURES[label] == "checkerboard":
                across = rows * np.cos(angle) - columns * np.sin(angle)
                wave = np.sign(wave * np.sin(2 * np.pi * frequency * across + rng.uniform(0, 2 * np.pi)))
        image = 127.5 * (1 + c.contrast * wave)
        return {
            "image": np.clip(np.rint(image), 0, 255).astype(np.uint8),
            "label": np.int64(label),
            "frequency": np.float32(frequency),
            "angle": np.float32(angle),
        }


def _noise(rng: np.random.Generator, size: int, exponent: float) -> np.ndarray:
    """Periodic Gaussian noise (S, S) with spectrum 1/f^alpha, standard deviation 1/3."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    f[0, 0] = np.inf
    wave = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * f ** (-exponent / 2), (size, size))
    noise: np.ndarray = wave / (3 * wave.std())
    return noise
