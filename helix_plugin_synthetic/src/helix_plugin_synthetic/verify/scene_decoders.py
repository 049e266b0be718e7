"""What each modality of a scene says about the latent, read from it alone."""

from __future__ import annotations

import re

import numpy as np

from helix_plugin_synthetic.images.shapes import SHAPES, coverage
from helix_plugin_synthetic.paired.scenes import COLORS, PITCHES, PULSES, RADII, SIDES, SIZES


def from_image(image: np.ndarray) -> np.ndarray:
    """shape, color, size, side of an image (S, S, 3)."""
    S = len(image)
    light = image.astype(float).max(-1)
    lit = np.clip((light - 20) / (np.percentile(light, 99.5) - 20), 0, 1)
    lit[lit < 0.12] = 0
    inside = lit > 0.8
    tint = image[inside].mean(0)
    color = int(np.linalg.norm(np.array(list(COLORS.values())) - tint, axis=1).argmin())
    size = int(np.abs(np.array(RADII) * S - np.sqrt(lit.sum() / np.pi)).argmin())
    center = np.array([(axis * lit).sum() / lit.sum() for axis in np.mgrid[:S, :S]])
    side = int(np.abs(np.array([0.25, 0.5, 0.75]) * (S - 1) - center[1]).argmin())
    # The shape whose best turned template differs least.
    differences = [
        min(
            np.sum((coverage(S, label, center, RADII[size] * S, angle) - lit) ** 2)
            for angle in np.linspace(0, 2 * np.pi / max(1, (0, 3, 4, 6)[label]), 12, endpoint=False)
        )
        for label in range(len(SHAPES))
    ]
    return np.array([int(np.argmin(differences)), color, size, side])


def from_caption(caption: str) -> np.ndarray:
    """shape, color, size, side of a caption."""
    size, color, shape, side = re.fullmatch(r"a (\w+) (\w+) (\w+) (?:on|in) the (\w+)", caption).groups()  # type: ignore[union-attr]
    return np.array([SHAPES.index(shape), list(COLORS).index(color), SIZES.index(size), SIDES.index(side)])


def from_sound(sound: np.ndarray) -> np.ndarray:
    """shape, size, side of a sound (T, 2)."""
    T = len(sound)
    both = sound.sum(1)
    power = np.abs(np.fft.rfft(both)) ** 2
    peak = (np.argmax(power[4:]) + 4) / T
    size = int(np.abs(np.array(PITCHES) - peak).argmin())
    t = np.arange(T)
    envelope = both**2
    fits = [np.corrcoef(envelope, np.sin(np.pi * beats * t / T) ** 4)[0, 1] for beats in PULSES]
    ratio = np.log(np.std(sound[:, 0]) / np.std(sound[:, 1]))
    side = 0 if ratio > 0.6 else 2 if ratio < -0.6 else 1
    return np.array([int(np.argmax(fits)), size, side])
