"""Whether MLX can run here, and on what: read from the platform and from package metadata alone."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from helix_core.plugin_system.descriptors import Availability


def on_apple_silicon() -> bool:
    """Whether this is a Mac whose GPU MLX uses."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def probe() -> Availability:
    """The parts that `mlx` needs beside itself are distributions of their own."""
    if on_apple_silicon():
        if _installed("mlx-metal"):
            return Availability(True, "the GPU of Apple silicon, through Metal")
        return Availability(False, "mlx is installed without mlx-metal; reinstall it: pip install mlx", broken=True)
    if sys.platform != "linux":
        return Availability(False, "MLX runs on Macs with Apple silicon and on Linux")
    if _installed("mlx-cuda-12") or _installed("mlx-cuda-13"):
        return Availability(True, "MLX's CUDA device where it finds one, else its CPU device; Metal needs a Mac")
    if _installed("mlx-cpu"):
        return Availability(True, "MLX's CPU device; Metal needs a Mac with Apple silicon")
    return Availability(False, "mlx is installed without a device for Linux: pip install 'mlx[cpu]'")


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
