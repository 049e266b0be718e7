"""The CPU backend."""

from __future__ import annotations

from typing import Any

# isort: off
from helix_plugin_cpu import _openmp  # noqa: F401  (before torch)
from helix_plugin_torch.backend import TorchBackend

# isort: on
from helix_plugin_cpu._malloc import keep_freed_memory
from helix_plugin_cpu._matmul import prefer_onednn

keep_freed_memory()
prefer_onednn()


class CpuBackend(TorchBackend):
    """Torch tensors in main memory; Numba kernels where torch has none or only a slow one."""

    name = "cpu"

    @property
    def device(self) -> str:
        return "cpu"

    def describe(self) -> dict[str, Any]:
        import numba

        return {**super().describe(), "numba": numba.__version__}
