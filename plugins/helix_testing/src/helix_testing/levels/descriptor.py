"""Level 1, mandatory: what the plugin says about the backend is true and cheap to ask."""

from __future__ import annotations

import subprocess
import sys

from helix_core.kinds.backend import Backend
from helix_core.ops import OPS
from helix_core.plugin_system import components, create_target, probe, select
from helix_core.plugin_system.descriptors import KernelDescriptor
from helix_core.plugin_system.refs import load_ref

FRAMEWORKS = ("torch", "jax", "mlx", "numba", "triton", "pyopencl", "tensorflow", "wgpu")


class DescriptorLevel:
    """Found, importable, honest about its capabilities, with a quick probe that imports no framework."""

    def test_it_is_found_and_its_class_is_a_backend(self, backend_name: str) -> None:
        component = select("backend", backend_name).chosen
        assert component.descriptor.summary
        assert issubclass(create_target(component), Backend)

    def test_it_provides_what_its_class_can_do(self, backend_name: str, backend_instance: Backend) -> None:
        component = select("backend", backend_name).chosen
        assert set(component.descriptor.provides) == set(backend_instance.capabilities)
        assert backend_instance.name == component.name

    def test_the_kernels_of_its_plugin_can_be_bound(self, backend_name: str, backend_instance: Backend) -> None:
        """They are for ops that exist, and there; a wrong namespace or a misspelt op would never be noticed."""
        plugin = select("backend", backend_name).chosen.plugin
        spaces = {create_target(c).namespace for c in components("backend") if c.plugin == plugin}
        for component in components("kernel"):
            descriptor = component.descriptor
            if component.plugin == plugin and isinstance(descriptor, KernelDescriptor):
                assert descriptor.op in OPS, f"{component.full_name} is for an op {descriptor.op!r}, which there is not"
                if descriptor.namespace == backend_instance.namespace:
                    assert load_ref(descriptor.target)
                assert descriptor.namespace in spaces, (
                    f"{component.full_name} is for namespace {descriptor.namespace!r}; its plugin's backends have "
                    f"{', '.join(sorted(spaces))}"
                )

    def test_the_probe_is_quick(self, backend_name: str) -> None:
        descriptor = select("backend", backend_name).chosen.descriptor
        assert min(probe(descriptor)[1] for _ in range(5)) < 0.05

    def test_choosing_it_imports_no_framework(self, backend_name: str) -> None:
        code = (
            "import sys, helix_core\n"
            f"helix_core.select('backend', {backend_name!r})\n"
            f"print(*(m for m in {FRAMEWORKS!r} if m in sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.split() == []
