"""The conformance kit: base classes that a component is certified with.

Subclass one in a test module of any repository, or run `pytest --helix-backend=NAME` from anywhere. Imported lazily,
so that the pytest plugin costs nothing in runs that do not use it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {
    "BaseBackendTests": "helix_testing.backends",
    "BaseCommandTests": "helix_testing.command_line",
    "BaseGeneratorTests": "helix_testing.generators",
    "BaseKernelTests": "helix_testing.kernels",
    "BaseLayerTests": "helix_testing.layers",
    "BaseMemoryTests": "helix_testing.memories",
    "BaseOptimizerTests": "helix_testing.optimizers",
    "BaseScheduleTests": "helix_testing.schedules",
    "write_dist": "helix_testing.dists",
}

__all__ = [
    "BaseBackendTests",
    "BaseCommandTests",
    "BaseGeneratorTests",
    "BaseKernelTests",
    "BaseLayerTests",
    "BaseMemoryTests",
    "BaseOptimizerTests",
    "BaseScheduleTests",
    "write_dist",
]

if TYPE_CHECKING:
    from helix_testing.backends import BaseBackendTests as BaseBackendTests
    from helix_testing.command_line import BaseCommandTests as BaseCommandTests
    from helix_testing.dists import write_dist as write_dist
    from helix_testing.generators import BaseGeneratorTests as BaseGeneratorTests
    from helix_testing.kernels import BaseKernelTests as BaseKernelTests
    from helix_testing.layers import BaseLayerTests as BaseLayerTests
    from helix_testing.memories import BaseMemoryTests as BaseMemoryTests
    from helix_testing.optimizers import BaseOptimizerTests as BaseOptimizerTests
    from helix_testing.schedules import BaseScheduleTests as BaseScheduleTests


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
