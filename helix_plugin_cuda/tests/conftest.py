"""Without a card these tests run the kernels in Triton's interpreter.

Triton decides on that when it is imported, and the probe whenever it is asked: the variable is set for the import here,
and then for these tests alone, so that no other test of the same run sees a backend more.
"""

import os
import sys

import pytest

from helix_plugin_cuda.probe import INTERPRET, interpreting, probe

found = probe()
interpreted = found.by_name or not found.available
too_late = interpreted and "triton" in sys.modules and not interpreting(os.environ)
if interpreted:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(INTERPRET, "1")
        from helix_plugin_cuda.kernels import table  # noqa: F401


@pytest.fixture(scope="module", autouse=True)
def interpreter():
    """The variable, for as long as a file's tests run."""
    if too_late:
        pytest.fail(f"triton was imported before these tests, to compile: set {INTERPRET}=1 for the whole run")
    with pytest.MonkeyPatch.context() as patch:
        if interpreted:
            patch.setenv(INTERPRET, "1")
        yield
