"""The kernels as the op table takes them."""

from __future__ import annotations

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

selective_scan = Kernel.from_module(_scan)
causal_conv1d = Kernel.from_module(_conv)
rms_norm = Kernel.from_module(_norm)
linear_scan = Kernel.from_module(_linear_scan)
diagonal_ssm = Kernel.from_module(_modes)
gated_linear_attention = Kernel.from_module(_gla)
ssd = Kernel.from_module(_ssd)
add_rms_norm = Kernel.from_module(_add_norm)
cross_entropy = Kernel.from_module(_cross_entropy)
linear = Kernel.from_module(_linear)
linear_cross_entropy = _linear_cross_entropy.linear_cross_entropy
embedding = Kernel.from_module(_embedding)
swiglu = Kernel.from_module(_swiglu)
adamw = _adamw.step
bit_linear = _bit.bit_linear
long_conv = Kernel.from_module(_long)
gated_delta_rule = Kernel.from_module(_gated_delta)
rwkv7 = Kernel.from_module(_rwkv7)
wkv4 = Kernel.from_module(_wkv4)
