"""The kernels as the op table takes them."""

from __future__ import annotations

from types import ModuleType

from helix_core.kinds.kernel import Kernel
from helix_plugin_cuda.kernels import add_rms_norm as _add_norm
from helix_plugin_cuda.kernels import bit_linear as _bit
from helix_plugin_cuda.kernels import causal_conv1d as _conv
from helix_plugin_cuda.kernels import cross_entropy as _cross_entropy
from helix_plugin_cuda.kernels import diagonal_ssm as _diagonal
from helix_plugin_cuda.kernels import gated_delta_rule as _gated_delta
from helix_plugin_cuda.kernels import gated_linear_attention as _gla
from helix_plugin_cuda.kernels import linear_cross_entropy as _linear_cross_entropy
from helix_plugin_cuda.kernels import linear_scan as _linear_scan
from helix_plugin_cuda.kernels import long_conv as _long
from helix_plugin_cuda.kernels import rms_norm as _norm
from helix_plugin_cuda.kernels import rwkv7 as _rwkv7
from helix_plugin_cuda.kernels import selective_scan as _scan
from helix_plugin_cuda.kernels import ssd as _ssd
from helix_plugin_cuda.kernels import swiglu as _swiglu
from helix_plugin_cuda.kernels import wkv4 as _wkv4


def _bundle(module: ModuleType) -> Kernel:
    return Kernel(
        module.forward, module.forward_train, module.backward, module.residuals, getattr(module, "shared", {})
    )


bit_linear = _bit.bit_linear
rms_norm = _bundle(_norm)
add_rms_norm = _bundle(_add_norm)
swiglu = _bundle(_swiglu)
cross_entropy = _bundle(_cross_entropy)
linear_cross_entropy = _bundle(_linear_cross_entropy)
linear_scan = _bundle(_linear_scan)
causal_conv1d = _bundle(_conv)
selective_scan = _bundle(_scan)
diagonal_ssm = _bundle(_diagonal)
gated_linear_attention = _bundle(_gla)
ssd = _bundle(_ssd)
gated_delta_rule = _bundle(_gated_delta)
rwkv7 = _bundle(_rwkv7)
wkv4 = _bundle(_wkv4)
long_conv = _bundle(_long)
