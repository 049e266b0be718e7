"""What core itself provides, through the same hooks as every plugin: the reference backend."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import BackendDescriptor
from helix_core.plugin_system.hookspecs import hookimpl


@hookimpl
def helix_backends() -> Sequence[BackendDescriptor]:
    return [
        BackendDescriptor(
            name="reference",
            target="helix_core.reference.numpy_backend:ReferenceBackend",
            summary="NumPy and every op's own definition: the oracle; no gradients, never fast",
            provides=("float64",),
            priority=-100,
        )
    ]
