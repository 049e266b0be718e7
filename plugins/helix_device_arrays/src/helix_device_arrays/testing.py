"""What every backend on device arrays is tested for: the conformance kit, models, layers, and what crosses over."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from helix_core import create
from helix_core.events import Event, subscribe
from helix_plugin_lm.generation import Sampling, Stopping, generate
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_testing import BaseBackendTests
from helix_testing.layer_case import Case
from helix_testing.levels.base import assert_close


def _model_of(mixer: str) -> LanguageModel:
    config = {"vocab_size": 256, "d_model": 64, "n_layers": 2, "mixer": {"name": mixer}}
    return LanguageModel(ModelConfig.model_validate(config))


class DeviceArraysTests(BaseBackendTests):
    """Subclass it and set `backend`; needs the plugins of the layers and of `cpu`.

    slow_mixers   those of `MIXERS` whose kernels take the driver so long to compile that they are tests marked slow
    """

    MIXERS: ClassVar[tuple[str, ...]] = ("mamba", "hyena", "s4d", "rwkv7")
    slow_mixers: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def helix_parametrize(cls, metafunc: pytest.Metafunc) -> None:
        super().helix_parametrize(metafunc)
        if "mixer" in metafunc.fixturenames:
            slow = pytest.mark.slow
            names = [pytest.param(name, marks=slow) if name in cls.slow_mixers else name for name in cls.MIXERS]
            metafunc.parametrize("mixer", names)

    def test_logits_are_the_oracles_after_few_transfers(self, backend_instance: Any, mixer: str, rng: Any) -> None:
        chosen = backend_instance
        model, tokens = _model_of(mixer), rng.integers(256, size=(2, 150))
        values = model.init(0)
        oracle = create("backend", "reference")
        exact = {name: oracle.asarray(value, "float64") for name, value in values.items()}
        expected = model.apply(oracle.bind(dtype="float64", mode="infer"), exact, tokens)[0]
        F = chosen.bind(mode="infer")
        params = {name: chosen.asarray(value, "float32") for name, value in values.items()}
        events: list[Event] = []
        with subscribe(events.append):
            for _ in range(2):  # what layers make of the length is on the device after the first
                chosen.transfers()
                logits = chosen.to_numpy(model.apply(F, params, chosen.asarray(tokens))[0])
            chosen.transfers()
        assert_close(logits, expected, 1e-4, f"logits of {mixer}")
        before, after = [event.data for event in events if event.name == "transfers"][-2:]
        moved = {name: after[name] - before[name] for name in after if name != "backend"}
        assert (moved["uploads"], moved["uploaded_bytes"]) == (1, 4 * tokens.size), "tokens in, as 32-bit numbers"
        # A long convolution by transforms asks whether its rows grow: a number for each layer.
        asked = model.config.n_layers if mixer in ("hyena", "s4d") else 0
        wanted = (1 + asked, 4 * (logits.size + asked))
        assert (moved["downloads"], moved["downloaded_bytes"]) == wanted, "logits out, and what was asked"
        assert moved["programs"] == 0, "the second pass compiles nothing"
        assert moved["launches"] > 0

    def test_greedy_text_is_that_of_the_cpu(self, backend_instance: Any) -> None:
        model, texts = _model_of("mamba"), []
        values = model.init(3)
        values["embedding.weight"] = values["embedding.weight"] * 50
        greedy, hundred = Sampling(temperature=0), Stopping(max_tokens=100)
        for chosen in (create("backend", "cpu"), backend_instance):
            params = {key: chosen.asarray(value, "float32") for key, value in values.items()}
            F = chosen.bind(mode="infer")
            texts.append(b"".join(generate(model, chosen, F, params, b"def main(", sampling=greedy, stopping=hundred)))
        assert len(texts[0]) == 100
        assert texts[0] == texts[1]

    @pytest.mark.slow
    def test_every_layer_is_the_oracles(self, backend_name: str, helix_layer: str, rng: Any) -> None:
        """All at once, and in two chunks with the state between them."""
        case = Case(helix_layer, {"d_model": 64}, backend_name)
        x = rng.normal(size=(2, 37, 64))
        expected = case.exact(x)
        assert_close(case.parallel(x), expected, case.tolerance, "all at once")
        if case.layer.causal:
            first, state = case.run(x[:, :20], case.init_state(2))
            second, _ = case.run(x[:, 20:], state)
            assert_close(np.concatenate([first, second], axis=1), expected, case.tolerance, "in two chunks")
