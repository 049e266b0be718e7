"""Asking a component whether it works here."""

from __future__ import annotations

import time

from helix_core.plugin_system.descriptors import Availability, Descriptor
from helix_core.plugin_system.loading import describe_failure, without_exit
from helix_core.plugin_system.refs import load_ref

SLOW_PROBE_SECONDS = 0.05
"""What a probe may take; `helix doctor` names those that take longer."""


def probe(descriptor: Descriptor) -> tuple[Availability, float]:
    """Run a component's probe: the answer, and the seconds it took. A probe that fails says "broken"."""
    if descriptor.probe is None:
        return Availability(True, "ready"), 0.0
    began = time.perf_counter()
    reference = descriptor.probe
    try:
        answer = without_exit(lambda: load_ref(reference)())
        if not isinstance(answer, Availability):
            raise TypeError(f"it returned {type(answer).__name__}, not Availability")
    except Exception as error:
        answer = Availability(False, f"probe failed: {describe_failure(error)}", broken=True)
    return answer, time.perf_counter() - began
