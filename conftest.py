"""Without a graphics card, tests run Triton's kernels in its interpreter. Triton decides that when it is imported, so
it is set before any test module is."""

import os
from contextlib import suppress

with suppress(ImportError):
    from helix_plugin_cuda.probe import probe

    if not probe().available:
        os.environ["TRITON_INTERPRET"] = "1"
