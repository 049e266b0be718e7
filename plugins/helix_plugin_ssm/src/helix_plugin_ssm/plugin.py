"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.descriptors import LayerDescriptor
from helix_core.hookspecs import hookimpl

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
            name="mamba2",
            target="helix_plugin_ssm.mamba2:Mamba2",
            config="helix_plugin_ssm.mamba2:Mamba2Config",
            summary="state-space duality block (Dao and Gu, 2024)",
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
    ]
