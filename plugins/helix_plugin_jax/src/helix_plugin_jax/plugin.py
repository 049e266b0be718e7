"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import BackendDescriptor, KernelDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"
DEVICES = ("cpu", "cuda", "rocm", "tpu", "metal")


@hookimpl
def helix_backends() -> Sequence[BackendDescriptor]:
    return [
        BackendDescriptor(
            name="jax",
            target="helix_plugin_jax.backend:JaxBackend",
            summary="JAX: whole steps compiled by XLA, on the device that JAX finds",
            requires=("jax>=0.7",),
            provides=("grad", "compile", "traces"),
            priority=-10,
        )
    ]


@hookimpl
def helix_kernels() -> Sequence[KernelDescriptor]:
    return [
        KernelDescriptor(
            name=op,
            op=op,
            target=f"helix_plugin_jax.kernels.{op}:{op}",
            summary=summary,
            requires=("jax>=0.7",),
            namespace="jax",
            devices=DEVICES,
            dtypes=("float32", "float64"),
            gradient="native",
        )
        for op, summary in (
            ("adamw", "the step's numbers are inputs, so that it compiles once"),
            ("linear_cross_entropy", "many logits in chunks of rows, computed again in the backward"),
            ("linear_scan", "a parallel scan on accelerators, a loop on processors"),
            ("selective_scan", "chunks of a parallel scan on accelerators, a loop on processors"),
        )
    ]
