"""The conformance kit on the backend. Its ops, gradients, training and compiler levels take minutes in the
interpreter, and run in the slow tier."""

import pytest

from helix_testing import BaseBackendTests
from helix_testing.backends import BasicLevel, DescriptorLevel


class TestCuda(BasicLevel, DescriptorLevel):
    @classmethod
    def helix_parametrize(cls, metafunc):
        metafunc.parametrize("backend_name", ["cuda"], scope="class")


@pytest.mark.slow
class TestAllOfCuda(BaseBackendTests):
    backend = "cuda"
