"""The kernels as the op table takes them."""

from __future__ import annotations

from types import ModuleType

from helix_core.ops import Kernel
from helix_plugin_cpu.kernels import causal_conv1d as _conv
from helix_plugin_cpu.kernels import rms_norm as _norm
from helix_plugin_cpu.kernels import selective_scan as _scan


def _bundle(module: ModuleType) -> Kernel:
    return Kernel(module.forward, module.forward_train, module.backward, module.residuals)


selective_scan = _bundle(_scan)
causal_conv1d = _bundle(_conv)
rms_norm = _bundle(_norm)
