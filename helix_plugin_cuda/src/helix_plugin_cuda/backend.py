"""The backend of graphics cards: NVIDIA's through CUDA, AMD's through ROCm, which torch also calls "cuda"."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any

import torch

from helix_core.errors import ComponentUnavailable
from helix_core.ops import OpTable
from helix_plugin_cuda.probe import interpreting
from helix_plugin_torch.backend import TorchBackend


class CudaBackend(TorchBackend):
    """Torch tensors on a graphics card, with Triton kernels.

    With TRITON_INTERPRET=1 the tensors are in main memory and Triton interprets its kernels: the same code, for tests.
    Raises ComponentUnavailable, with torch's own words, where torch cannot use the card.

    >>> import helix_core
    >>> backend = helix_core.create("backend", "cuda")
    >>> backend.bind(dtype="bfloat16").trail["rms_norm"].chosen
    'cuda/rms_norm'
    """

    name = "cuda"

    def __init__(self) -> None:
        self.interpreted = interpreting(os.environ)
        if not self.interpreted:
            try:
                torch.cuda.init()
            except (RuntimeError, AssertionError) as error:
                raise ComponentUnavailable(
                    f"torch cannot use the graphics card: {error}",
                    hint="`helix doctor` says what was found; `python -m torch.utils.collect_env` says more",
                ) from error

    @property
    def device(self) -> str:
        return "cuda"

    @property
    def home(self) -> torch.device:
        return torch.device("cpu" if self.interpreted else "cuda")

    def memory(self) -> int | None:
        return super().memory() if self.interpreted else torch.cuda.mem_get_info()[0]

    def synchronize(self) -> None:
        if not self.interpreted:
            torch.cuda.synchronize()

    def bind(self, *, dtype: str = "float32", mode: str = "train", pins: Mapping[str, str] | None = None) -> OpTable:
        table = super().bind(dtype=dtype, mode=mode, pins=pins)
        if self.interpreted:
            for op, choice in table.trail.items():
                if choice.chosen.startswith("cuda/"):
                    table.trail[op] = replace(choice, reason=f"{choice.reason}; run by Triton's interpreter")
        return table

    def describe(self) -> dict[str, Any]:
        description = {**super().describe(), "triton": _version("triton")}
        if self.interpreted:
            return {**description, "interpreter": True}
        card = torch.cuda.get_device_properties(torch.cuda.current_device())
        built = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return {
            **description,
            "card": card.name,
            "cards": torch.cuda.device_count(),
            "memory_gb": round(card.total_memory / 1e9, 1),
            "built_for": built,
        }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
