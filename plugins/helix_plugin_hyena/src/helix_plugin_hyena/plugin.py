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
            name="hyena",
            target="helix_plugin_hyena.hyena:Hyena",
            config="helix_plugin_hyena.hyena:HyenaConfig",
            summary="gated long convolutions with implicit filters (Poli et al., 2023)",
            provides=("recurrent",),
        )
    ]
