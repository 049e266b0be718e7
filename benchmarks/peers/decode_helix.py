"""Decoding and reading a prompt with helix: the cpu backend's decoder, and `apply`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import helix_core
from helix_plugin_lm.models import LanguageModel, ModelConfig

VOCABULARY, D_MODEL, LAYERS = 50280, 768, 24


def model() -> LanguageModel:
    mixer = {"name": "mamba"}
    return LanguageModel(ModelConfig(vocab_size=VOCABULARY, d_model=D_MODEL, n_layers=LAYERS, mixer=mixer))


def tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(VOCABULARY, size=shape)


def parts() -> tuple[Any, Any, LanguageModel, dict[str, Any]]:
    backend = helix_core.create("backend", "cpu")
    lm = model()
    return backend, backend.bind(mode="infer"), lm, {k: backend.asarray(v) for k, v in lm.init(0).items()}


def decode(weights: str, batch: int, tokens: int) -> Callable[[], Any]:
    backend, F, lm, params = parts()
    decoder = backend.decoder(lm, F, params, batch=batch, weights=weights)
    del params
    fed, initial = globals()["tokens"](tokens, batch), decoder.state()

    def run() -> Any:
        decoder.load(initial)
        return [decoder.step(row) for row in fed][-1]

    return run


def latency(weights: str) -> Callable[[], float]:
    backend, F, lm, params = parts()
    return p95(backend.decoder(lm, F, params, weights=weights).step)


def p95(step: Callable[[np.ndarray], Any]) -> Callable[[], float]:
    """Of forty tokens."""

    def run() -> float:
        times = []
        for token in tokens(40, 1):
            began = time.perf_counter()
            step(token)
            times.append(time.perf_counter() - began)
        return float(np.quantile(times, 0.95))

    return run


def prefill(length: int) -> Callable[[], Any]:
    backend, F, lm, params = parts()
    prompt = backend.asarray(tokens(1, length))

    def run() -> Any:
        with backend.inference():
            return lm.apply(F, params, prompt, state=lm.init_state(F, 1), last=True)[0][0, -1]

    return run
