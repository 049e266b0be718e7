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
    """Torch tensors in main memory; Numba kernels where torch has none or only a slow one."""

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

        With "bfloat16" and "int8" the decoder has copies of the matrices, and `params` is not needed any more.
        """
        from helix_plugin_cpu.decode.decoder import decoder

        return decoder(model, self, F, params, batch, weights)

    def describe(self) -> dict[str, Any]:
        import numba
        from llvmlite import binding

        config: Any = numba.config
        from helix_plugin_cpu.kernels._half import products

        return {
            **super().describe(),
            "numba": numba.__version__,
            "compiles_for": config.CPU_NAME or binding.get_host_cpu_name(),
            "vectors": vectors(),
            **products(),
        }
