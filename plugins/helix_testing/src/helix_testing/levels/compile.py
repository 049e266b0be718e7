"""Level 6: the compiler keeps the meaning, for more than one shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helix_core.kinds.backend import Backend
from helix_plugin_lm.models import loss
from helix_testing.levels.base import assert_close, require
from helix_testing.levels.tiny import TinyModel


# torch's compiler itself uses what torch deprecates, on its first import.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
class CompileLevel:
    """Compiled equals eager, values and gradients."""

    def test_compiled_equals_eager(self, backend_instance: Backend, rng: np.random.Generator) -> None:
        require(backend_instance, "compile")
        model, F = TinyModel(), backend_instance.bind(mode="infer")
        params = {k: backend_instance.asarray(v, "float32") for k, v in model.init(0).items()}

        def apply(p: dict[str, Any], tokens: Any) -> Any:
            return model.apply(F, p, tokens)[0]

        compiled = backend_instance.compile(apply)
        with backend_instance.inference():
            for shape in ((2, 9), (3, 12)):
                tokens = backend_instance.asarray(rng.integers(16, size=shape))
                eager = backend_instance.to_numpy(apply(params, tokens)).astype(np.float64)
                assert_close(backend_instance.to_numpy(compiled(params, tokens)), eager, 1e-5, f"compiled {shape}")

    def test_gradients_flow_through_compiled_code(self, backend_instance: Backend, rng: np.random.Generator) -> None:
        require(backend_instance, "compile")
        require(backend_instance, "grad")
        model, F = TinyModel(), backend_instance.bind(mode="train")
        params = {k: backend_instance.asarray(v, "float32") for k, v in model.init(0).items()}
        tokens, targets = (backend_instance.asarray(rng.integers(16, size=(2, 9))) for _ in range(2))

        def objective(p: dict[str, Any], x: Any, y: Any) -> Any:
            return loss(model, F, p, x, y)

        eager = backend_instance.value_and_grad(objective)(params, tokens, targets)
        compiled = backend_instance.value_and_grad(backend_instance.compile(objective))(params, tokens, targets)
        assert abs(float(eager[0]) - float(compiled[0])) < 1e-5
        for name, grad in eager[1].items():
            expected = backend_instance.to_numpy(grad).astype(np.float64)
            assert_close(backend_instance.to_numpy(compiled[1][name]), expected, 1e-4, f"gradient of {name}")
