"""What ops and functions of the array namespace become: native instructions for one step.

`LOWER[name](recorder, *args, **kwargs)` returns recorded arrays, or None where it has no instruction for such
arguments; the op is called from Python then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_plugin_cpu.decode import lower_arrays, lower_ops, lower_recurrences

LOWER: dict[str, Callable[..., Any]] = lower_arrays.LOWER | lower_ops.LOWER | lower_recurrences.LOWER
