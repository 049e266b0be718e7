"""Scenes seen, told and heard: an image, a caption and a sound of one shared latent."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig, Sample
from helix_plugin_synthetic.images.shapes import SHAPES, circumradius, paint

COLORS = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 220, 50),
    "white": (240, 240, 240),
}
SIZES = ("small", "medium", "large")
SIDES = ("left", "middle", "right")
RADII = (0.1, 0.14, 0.18)
PITCHES = (0.16, 0.08, 0.04)
"""Cycles per step of the sound: small things sound high."""
PULSES = (1, 2, 3, 4)
"""Beats of the sound, by shape."""


class ScenesConfig(GeneratorConfig):
    """Options of Scenes."""

    size: int = Field(64, ge=32, le=1024, description="pixels per side of the image")
    sound: int = Field(512, ge=256, le=2**20, description="steps of the sound")
    noise: float = Field(0.02, ge=0, le=0.2, description="standard deviation in image and sound, of the full range")
    mismatch: float = Field(0.0, ge=0, le=1, description="P(the caption is of another scene): planted errors")


class Scenes(Generator[ScenesConfig]):
    """A latent (shape, color, size, side) and what it looks like, is called and sounds like.

    image (S, S, 3)   the shape in its color and size, at its side, at a random height and angle
    caption           "a small red circle on the left"
    sound (T, 2)      pitch tells the size, the number of beats the shape, and the louder channel the side

    Every modality shows shape, size and side; image and caption show the color. `matched` is False where the caption
    was drawn from another latent.

    >>> from helix_core import create
    >>> sample = create("generator", "scenes", size=32).sample(0, 0)
    >>> sorted(sample)
    ['caption', 'image', 'latent', 'matched', 'sound']
    """

    def schema(self) -> dict[str, FieldSpec]:
        c = self.config
        return {
            "image": FieldSpec("uint8", (c.size, c.size, 3), "RGB"),
            "caption": FieldSpec("str", (), "of the scene"),
            "sound": FieldSpec("float32", (c.sound, 2), "left and right channel, -1 to 1 without noise"),
            "latent": FieldSpec("int64", (4,), "shape, color, size, side"),
            "matched": FieldSpec("bool", (), "whether the caption is of this scene"),
        }

    def draw(self, rng: np.random.Generator, world: None) -> Sample:
        c = self.config
        latent, other = _latent(rng), _latent(rng)
        matched = bool(rng.random() >= c.mismatch)
        while not matched and np.array_equal(latent, other):
            other = _latent(rng)
        image = self._image(rng, *latent.tolist())
        sound = self._sound(rng, *latent.tolist())
        return {
            "image": image,
            "caption": describe(latent if matched else other),
            "sound": sound,
            "latent": latent,
            "matched": np.bool_(matched),
        }

    def _image(self, rng: np.random.Generator, shape: int, color: int, size: int, side: int) -> np.ndarray:
        S = self.config.size
        radius = RADII[size] * S
        reach = radius * circumradius(shape)
        column = np.clip((0.25, 0.5, 0.75)[side] * (S - 1), reach, S - 1 - reach)
        row = rng.uniform(reach, S - 1 - reach)
        angle = rng.uniform(0, 2 * np.pi)
        tint = np.array(list(COLORS.values())[color])
        image = paint(S, shape, np.array([row, column]), radius, angle, tint, np.full(3, 20))
        image = image + 255 * self.config.noise * rng.standard_normal(image.shape)
        pixels: np.ndarray = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        return pixels

    def _sound(self, rng: np.random.Generator, shape: int, color: int, size: int, side: int) -> np.ndarray:
        T = self.config.sound
        t = np.arange(T)
        beats = np.sin(np.pi * PULSES[shape] * t / T) ** 2
        wave = beats * np.sin(2 * np.pi * PITCHES[size] * t + rng.uniform(0, 2 * np.pi))
        pan = np.array([(1.0, 0.3), (0.7, 0.7), (0.3, 1.0)][side])
        sound: np.ndarray = (wave[:, None] * pan + self.config.noise * rng.standard_normal((T, 2))).astype(np.float32)
        return sound


def describe(latent: np.ndarray) -> str:
    """The caption of a latent."""
    shape, color, size, side = latent.tolist()
    place = "in the middle" if SIDES[side] == "middle" else f"on the {SIDES[side]}"
    return f"a {SIZES[size]} {list(COLORS)[color]} {SHAPES[shape]} {place}"


def _latent(rng: np.random.Generator) -> np.ndarray:
    return rng.integers([len(SHAPES), len(COLORS), len(SIZES), len(SIDES)])
