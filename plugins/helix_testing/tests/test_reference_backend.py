"""The conformance kit on the reference backend."""

from helix_core import create
from helix_core.ops.table import REFERENCE
from helix_testing import BaseBackendTests


class TestReference(BaseBackendTests):
    backend = "reference"


def test_it_uses_no_kernel_of_any_plugin():
    trail = create("backend", "reference").bind().trail
    assert {choice.chosen for choice in trail.values()} == {REFERENCE}
