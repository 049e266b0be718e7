"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import LayerDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"


@hookimpl
def helix_layers() -> Sequence[LayerDescriptor]:
    return [
        LayerDescriptor(
            name="attention",
            target="helix_plugin_blocks.attention:Attention",
            config="helix_plugin_blocks.attention:AttentionConfig",
            summary="softmax attention with grouped heads, rotary positions and a window (Vaswani et al., 2017)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="swiglu",
            target="helix_plugin_blocks.swiglu:SwiGLU",
            config="helix_plugin_blocks._mlp:MLPConfig",
            summary="gated MLP with a SiLU gate (Shazeer, 2020)",
        ),
        LayerDescriptor(
            name="moe",
            target="helix_plugin_blocks.moe:MoE",
            config="helix_plugin_blocks.moe:MoEConfig",
            summary="mixture of experts: a gate, the experts or motifs choose among many MLPs (Shazeer et al., 2017)",
        ),
        LayerDescriptor(
            name="geglu",
            target="helix_plugin_blocks.geglu:GeGLU",
            config="helix_plugin_blocks._mlp:MLPConfig",
            summary="gated MLP with a GELU gate (Shazeer, 2020)",
        ),
        LayerDescriptor(
            name="gelu_mlp",
            target="helix_plugin_blocks.gelu_mlp:GeluMLP",
            config="helix_plugin_blocks.gelu_mlp:GeluMLPConfig",
            summary="the transformer's MLP with a GELU (Vaswani et al., 2017)",
        ),
    ]
