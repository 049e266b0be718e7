"""Helix's layers, each in the model that recipes train."""

from __future__ import annotations

from typing import Any

import numpy as np
from invariants import VOCAB

from helix_core.plugin_system import components, create
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss

LAYERS: dict[str, dict[str, Any]] = {
    "mamba": {},
    "mamba2": {"d_state": 16, "head_dim": 16},
    "mamba3": {"d_state": 16, "head_dim": 16},
    "gated_deltanet": {"n_heads": 2},
    "rwkv7": {"head_dim": 16},
    "rwkv4": {},
    "retnet": {"n_heads": 2},
    "gla": {"n_heads": 2},
    "mingru": {},
    "minlstm": {},
    "s4": {},
    "s4d": {"d_state": 16},
    "hyena": {"l_max": 64},
    "attention": {"n_heads": 2},
}


def available() -> dict[str, dict[str, Any]]:
    here = {component.name for component in components("layer")}
    return {name: options for name, options in LAYERS.items() if name in here}


class Ours:
    """A model of two blocks of one layer on the backend that trains here."""

    def __init__(self, layer: str) -> None:
        mixer = {"name": layer, **LAYERS[layer]}
        config = ModelConfig.model_validate({"vocab_size": VOCAB, "d_model": 32, "n_layers": 2, "mixer": mixer})
        self.model = LanguageModel(config)
        self.backend = create("backend", "auto")
        self.F, self.F_train = (self.backend.bind(dtype="float32", mode=mode) for mode in ("infer", "train"))
        self.params = {name: self.backend.asarray(a) for name, a in self.model.init(0).items()}

    def _apply(self, tokens: np.ndarray, **more: Any) -> tuple[np.ndarray, Any]:
        with self.backend.inference():
            logits, state = self.model.apply(self.F, self.params, self.backend.asarray(tokens), **more)
            return self.backend.to_numpy(logits), state

    def logits(self, tokens: np.ndarray, mask: Any = None, documents: Any = None) -> np.ndarray:
        reset = None
        if documents is not None:
            reset = np.zeros(tokens.shape, bool)
            reset[:, np.cumsum(documents)[:-1]] = True
            reset = self.backend.asarray(reset)
        return self._apply(tokens, mask=None if mask is None else self.backend.asarray(mask), reset=reset)[0]

    def begin(self, tokens: np.ndarray, mask: Any = None) -> tuple[np.ndarray, Any]:
        state = self.model.init_state(self.F, len(tokens))
        return self._apply(tokens, mask=None if mask is None else self.backend.asarray(mask), state=state)

    def go_on(self, tokens: np.ndarray, cache: Any) -> tuple[np.ndarray, Any]:
        return self._apply(tokens, state=cache)

    def gradients(self, tokens: np.ndarray, labels: np.ndarray, micro: int) -> dict[str, np.ndarray]:
        # As the trainer does it: weights are 1 over the number of scored tokens in all micro-batches together.
        targets, scored = labels[:, 1:], labels[:, 1:] >= 0
        weights = (scored / scored.sum()).astype(np.float32)
        run = self.backend.value_and_grad(
            lambda params, *batch: loss(self.model, self.F_train, params, batch[0], batch[1], weights=batch[2])
        )
        total: dict[str, np.ndarray] = {}
        parts = (np.split(a, micro) for a in (tokens[:, :-1], np.where(scored, targets, 0), weights))
        for part in zip(*parts, strict=True):
            _, grads = run(self.params, *map(self.backend.asarray, map(np.ascontiguousarray, part)))
            for name, g in grads.items():
                total[name] = total.get(name, 0.0) + self.backend.to_numpy(g).astype(np.float64)
        return total
