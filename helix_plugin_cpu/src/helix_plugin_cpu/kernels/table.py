"""The kernels as the op table takes them."""

from __future__ import annotations

from types import ModuleType

from helix_core.kinds.kernel import Kernel
from helix_plugin_cpu.kernels import adamw as _adamw
from helix_plugin_cpu.kernels import add_rms_norm as _add_norm
from helix_plugin_cpu.kernels import bit_linear as _bit
from helix_plugin_cpu.kernels import causal_conv1d as _conv
from helix_plugin_cpu.kernels import cross_entropy as _cross_entropy
from helix_plugin_cpu.kernels import diagonal_ssm as _modes
from helix_plugin_cpu.kernels import embedding as _embedding
from helix_plugin_cpu.kernels import gated_delta_rule as _gated_delta
from helix_plugin_cpu.kernels import gated_linear_attention as _gla
from helix_plugin_cpu.kernels import linear as _linear
from helix_plugin_cpu.kernels import linear_cross_entropy as _linear_cross_entropy
from helix_plugin_cpu.kernels import linear_scan as _linear_scan
from helix_plugin_cpu.kernels import long_conv as _long
from helix_plugin_cpu.kernels import rms_norm as _norm
from helix_plugin_cpu.kernels import rwkv7 as _rwkv7
from helix_plugin_cpu.kernels import selective_scan as _scan
from helix_plugin_cpu.kernels import ssd as _ssd
from helix_plugin_cpu.kernels import swiglu as _swiglu
from helix_plugin_cpu.kernels import wkv4 as _wkv4


def _bundle(module: ModuleType) -> Kernel:
    return Kernel(
        module.forward, module.forward_train, module.backward, module.residuals, getattr(module, "shared", {})
    )


selective_scan = _bundle(_scan)
causal_conv1d = _bundle(_conv)
rms_norm = _bundle(_norm)
linear_scan = _bundle(_linear_scan)
diagonal_ssm = _bundle(_modes)
gated_linear_attention = _bundle(_gla)
ssd = _bundle(_ssd)
add_rms_norm = _bundle(_add_norm)
cross_entropy = _bundle(_cross_entropy)
linear = _bundle(_linear)
linear_cross_entropy = _linear_cross_entropy.linear_cross_entropy
embedding = _bundle(_embedding)
swiglu = _bundle(_swiglu)
adamw = _adamw.step
bit_linear = _bit.bit_linear
long_conv = _bundle(_long)
gated_delta_rule = _bundle(_gated_delta)
rwkv7 = _bundle(_rwkv7)
wkv4 = _bundle(_wkv4)
