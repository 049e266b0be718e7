"""The backend suite: levels from the descriptor to the compiler."""

from __future__ import annotations

from typing import ClassVar

import pytest

from helix_testing.levels.basic import BasicLevel
from helix_testing.levels.compile import CompileLevel
from helix_testing.levels.descriptor import DescriptorLevel
from helix_testing.levels.grad import GradLevel
from helix_testing.levels.ops import OpsLevel
from helix_testing.levels.train import TrainLevel


# Inherited tests are collected from the last base to the first.
class BaseBackendTests(CompileLevel, TrainLevel, GradLevel, OpsLevel, BasicLevel, DescriptorLevel):
    """Set `backend` to the name to certify.

    descriptor and basic are mandatory; the further levels follow the capabilities that the backend declares: what is
    declared must pass, what is not is skipped as "not implemented".
    """

    backend: ClassVar[str] = ""

    @classmethod
    def helix_parametrize(cls, metafunc: pytest.Metafunc) -> None:
        metafunc.parametrize("backend_name", [cls.backend], scope="class")
