"""Without a card these tests run the kernels in Triton's interpreter, which Triton decides on when it is imported."""

import os
import sys

import pytest

from helix_plugin_cuda.probe import probe

if not probe().available:
    if "triton" in sys.modules:
        pytest.exit("triton was imported before TRITON_INTERPRET was set: run these tests by themselves", returncode=3)
    os.environ["TRITON_INTERPRET"] = "1"
