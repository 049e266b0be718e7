"""The layer kit on `memory_read`, and what the layer is for: recalling what followed."""

import numpy as np

from helix_core import create
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
from helix_testing import BaseLayerTests


class TestMemoryRead(BaseLayerTests):
    layer = "memory_read"
    configs = (
        {"d_model": 8, "d_key": 6, "slots": 12, "read": 3},
        {"d_model": 5, "d_key": 4, "slots": 90, "read": 200, "sharpness": 3.0},
    )

    def test_the_past_reaches_the_future(self, layer_case, x):
        """Step 0 is forgotten after `slots` steps; until then it counts."""
        changed = x.copy()
        changed[:, 0] += 1.0
        difference = np.abs(layer_case.exact(changed) - layer_case.exact(x)).max(axis=(0, 2))
        slots = layer_case.config["slots"]
        assert difference[1 : min(slots, 70)].max() > 1e-4
        assert (difference[slots + 1 :] == 0).all()


def test_a_model_recalls_what_followed():
    """Random keys and values, then the keys again: only the row itself says which value follows."""
    rng = np.random.default_rng(0)
    backend = create("backend", "cpu")
    F = backend.bind(mode="train")

    def batch():
        keys, values = rng.permuted(np.tile(np.arange(16), (24, 1)), axis=1)[:, :6], rng.integers(16, 32, size=(24, 6))
        order = rng.permuted(np.tile(np.arange(6), (24, 1)), axis=1)
        first = np.stack([keys, values], 2).reshape(24, 12)
        again = np.stack([np.take_along_axis(a, order, 1) for a in (keys, values)], 2).reshape(24, 12)
        tokens = np.concatenate([first, again], 1)
        return tokens[:, :-1].copy(), tokens[:, 1:].copy()

    config = {"vocab_size": 32, "d_model": 32, "n_layers": 1, "mixer": {"name": "memory_read", "slots": 24, "read": 4}}
    model = LanguageModel(ModelConfig.model_validate(config))
    params = {k: backend.asarray(v) for k, v in model.init(0).items()}
    optimizer = create("optimizer", "adamw", weight_decay=0.0)
    state = optimizer.init(F, params)
    step_of = backend.value_and_grad(lambda p, x, y: loss(model, F, p, x, y))
    for step in range(1, 251):
        x, y = (backend.asarray(a) for a in batch())
        _, grads = step_of(params, x, y)
        with backend.inference():
            params, state = optimizer.update(F, params, grads, state, lr=1e-2, step=step)
    x, y = batch()
    with backend.inference():
        logits = backend.to_numpy(model.apply(F, params, backend.asarray(x))[0])
    recalled = np.mean(logits[:, 12::2].argmax(-1) == y[:, 12::2])
    assert recalled > 0.7, f"recalled {recalled:.0%}; chance is 6 %"
