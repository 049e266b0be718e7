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
            name="mamba",
            target="helix_plugin_ssm.mamba:Mamba",
            config="helix_plugin_ssm.mamba:MambaConfig",
            summary="selective state-space block (Gu and Dao, 2023)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="s4d",
            target="helix_plugin_ssm.s4d:S4D",
            config="helix_plugin_ssm.s4d:S4DConfig",
            summary="diagonal state-space block, time-invariant (Gu, Gupta, Goel and Ré, 2022)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="s4",
            target="helix_plugin_ssm.s4:S4",
            config="helix_plugin_ssm.s4:S4Config",
            summary="structured state-space block, diagonal plus low rank from HiPPO (Gu, Goel and Ré, 2022)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="mamba2",
            target="helix_plugin_ssm.mamba2:Mamba2",
            config="helix_plugin_ssm.mamba2:Mamba2Config",
            summary="state-space duality block (Dao and Gu, 2024)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="mamba3",
            target="helix_plugin_ssm.mamba3:Mamba3",
            config="helix_plugin_ssm.mamba3:Mamba3Config",
            summary="trapezoidal state space with a turning state, SISO or MIMO (Lahoti et al., 2026)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="retnet",
            target="helix_plugin_ssm.retnet:RetNet",
            config="helix_plugin_ssm.retnet:RetNetConfig",
            summary="multi-scale retention (Sun et al., 2023)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="gla",
            target="helix_plugin_ssm.gla:GLA",
            config="helix_plugin_ssm.gla:GLAConfig",
            summary="gated linear attention (Yang et al., 2023)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="gated_deltanet",
            target="helix_plugin_ssm.gated_deltanet:GatedDeltaNet",
            config="helix_plugin_ssm.gated_deltanet:GatedDeltaNetConfig",
            summary="gated delta rule (Yang, Kautz and Hatamizadeh, 2024)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="mingru",
            target="helix_plugin_ssm.mingru:MinGRU",
            config="helix_plugin_ssm.mingru:MinGRUConfig",
            summary="gated recurrent unit as one linear scan (Feng et al., 2024)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="minlstm",
            target="helix_plugin_ssm.minlstm:MinLSTM",
            config="helix_plugin_ssm.minlstm:MinLSTMConfig",
            summary="long short-term memory as one linear scan (Feng et al., 2024)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="rwkv7",
            target="helix_plugin_ssm.rwkv7:RWKV7",
            config="helix_plugin_ssm.rwkv7:RWKV7Config",
            summary='RWKV-7 "Goose" time mix (Peng et al., 2025)',
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="rwkv7_channel_mix",
            target="helix_plugin_ssm.rwkv7_channel_mix:RWKV7ChannelMix",
            config="helix_plugin_ssm.rwkv7_channel_mix:RWKV7ChannelMixConfig",
            summary="RWKV-7 channel mix, the mlp beside rwkv7 (Peng et al., 2025)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="rwkv4",
            target="helix_plugin_ssm.rwkv4:RWKV4",
            config="helix_plugin_ssm.rwkv4:RWKV4Config",
            summary="RWKV-4 time mix (Peng et al., 2023)",
            provides=("recurrent",),
        ),
        LayerDescriptor(
            name="rwkv4_channel_mix",
            target="helix_plugin_ssm.rwkv4_channel_mix:RWKV4ChannelMix",
            config="helix_plugin_ssm.rwkv4_channel_mix:RWKV4ChannelMixConfig",
            summary="RWKV-4 channel mix, the mlp beside rwkv4 (Peng et al., 2023)",
            provides=("recurrent",),
        ),
    ]
