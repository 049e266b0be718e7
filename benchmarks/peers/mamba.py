"""The Mamba language model of the rows: d_model 256, 4 layers, bytes; every side gets these parameters and tokens."""

from __future__ import annotations

import numpy as np

from helix_plugin_lm.models import LanguageModel, ModelConfig
from peers import inputs

D_MODEL, LAYERS, VOCAB = 256, 4, 256
EPS = 1e-5
WATCHED = ("embedding.weight", "blocks.0.mixer.A_log", "blocks.0.mixer.in_proj.weight", "blocks.3.mixer.D")
"""Parameters whose gradients a step returns, for comparison."""


def model() -> LanguageModel:
    return LanguageModel(ModelConfig(vocab_size=VOCAB, d_model=D_MODEL, n_layers=LAYERS, mixer=[{"name": "mamba"}]))


def params() -> dict[str, np.ndarray]:
    return model().init(0)


def tokens(shape: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and targets (B, L)."""
    rows = inputs.rng("tokens", *shape).integers(0, VOCAB, (shape[0], shape[1] + 1))
    return rows[:, :-1].copy(), rows[:, 1:].copy()
