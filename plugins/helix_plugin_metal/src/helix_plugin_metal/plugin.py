"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.descriptors import BackendDescriptor
from helix_core.hookspecs import hookimpl
from helix_plugin_metal.probe import on_apple_silicon

PLUGIN_API = "1.0"


@hookimpl
def helix_backends() -> Sequence[BackendDescriptor]:
    return [
        BackendDescriptor(
            name="metal",
            target="helix_plugin_metal.backend:MetalBackend",
            summary="MLX: the GPU of Apple silicon; under Linux, MLX's CPU device",
            requires=("mlx>=0.32",),
            probe="helix_plugin_metal.probe:probe",
            provides=("grad", "compile"),
            # The first choice where there is a GPU for it; on other machines `cpu` is several times as fast.
            priority=10 if on_apple_silicon() else -20,
        )
    ]
