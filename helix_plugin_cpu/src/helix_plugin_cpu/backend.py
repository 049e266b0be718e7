"""The CPU backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# isort: off
from helix_plugin_cpu import _openmp  # noqa: F401  (before torch)
from helix_plugin_torch.backend import TorchBackend

# isort: on
from helix_plugin_cpu._isa import vectors
from helix_plugin_cpu._malloc import keep_freed_memory
from helix_plugin_cpu._onednn import prefer_onednn

if TYPE_CHECKING:
    from helix_core.kinds.backend import Params
    from helix_core.kinds.decoder import DecodableModel, Decoder
    from helix_core.ops import OpTable

keep_freed_memory()
prefer_onednn()


class CpuBackend(TorchBackend):
    """Torch tensors in main memory; Numba kernels where torch has none or only a slow one.

    >>> import helix_core, torch
    >>> F = helix_core.create("backend", "cpu").bind(mode="infer")
    >>> F.rms_norm(torch.tensor([[3.0, 4.0]]), torch.ones(2)).round(decimals=3)
    tensor([[0.8490, 1.1310]])
    >>> F.trail["rms_norm"].chosen
    'cpu/rms_norm'
    """

    name = "cpu"

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def xp(self) -> Any:
        from helix_plugin_cpu import namespace

        return namespace

    def decoder(
        self, model: DecodableModel, F: OpTable, params: Params, *, batch: int = 1, weights: str = "float32"
    ) -> Decoder:
        """A decoder that runs the model's step as one native program; the plain one where it cannot be recorded.

        With "bfloat16" and "int8" the decoder has copies of the matrices, and `params` is not needed any more. Logits
        are (batch, V) for a vocabulary of V tokens. Raises ComponentUnavailable for other formats, and for these two
        where the step cannot be recorded.

        >>> import helix_core, numpy as np
        >>> from helix_plugin_lm.models import LanguageModel, ModelConfig
        >>> backend = helix_core.create("backend", "cpu")
        >>> model = LanguageModel(ModelConfig(vocab_size=32, d_model=8, n_layers=1, mixer={"name": "mamba"}))
        >>> params = {name: backend.asarray(value) for name, value in model.init(seed=0).items()}
        >>> decoder = backend.decoder(model, backend.bind(mode="infer"), params, batch=2)
        >>> decoder.step(np.array([3, 5])).shape
        (2, 32)
        """
        from helix_plugin_cpu.decode.decoder import decoder

        return decoder(model, self, F, params, batch, weights)

    def describe(self) -> dict[str, Any]:
        import numba
        from llvmlite import binding

        config: Any = numba.config
        from helix_plugin_cpu.kernels._half import products
        from helix_plugin_cpu.prepared.load import described

        return {
            **super().describe(),
            "numba": numba.__version__,
            "compiles_for": config.CPU_NAME or binding.get_host_cpu_name(),
            "vectors": vectors(),
            "machine_code": described(),
            **products(),
        }
