"""Asking a component whether it works here."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from helix_core.isolation import contained, output_to_stderr
from helix_core.plugin_system.descriptors import Availability, Descriptor
from helix_core.plugin_system.loading import describe_failure
from helix_core.plugin_system.refs import load_ref

SLOW_PROBE_SECONDS = 0.05
"""What a probe may take; `helix doctor` names those that take longer."""
PROBE_LIMIT_SECONDS = 2.0
"""How long a command waits for a probe before it goes on without the component."""


@dataclass
class _Question:
    """A probe that was asked: its answer once there is one."""

    done: threading.Event = field(default_factory=threading.Event)
    answer: Availability | None = None


_late: dict[str, _Question] = {}
"""Probes that were not done in time, by reference: they are never asked twice, and what they say later counts."""


def forget_late_probes() -> None:
    """Ask every probe anew: the plugins have been loaded again."""
    _late.clear()


def probe(descriptor: Descriptor) -> tuple[Availability, float]:
    """Run a component's probe: the answer, and the seconds it took. One that fails or takes too long says "broken"."""
    if descriptor.probe is None:
        return Availability(True, "ready"), 0.0
    began = time.perf_counter()
    reference = descriptor.probe
    question = _late.get(reference)
    if question is None:
        with output_to_stderr():  # before the thread starts, which may print at once
            question = _ask(reference)
            if not question.done.wait(PROBE_LIMIT_SECONDS):
                _late[reference] = question
    seconds = time.perf_counter() - began
    if question.answer is not None:
        return question.answer, seconds
    reason = f"its probe {reference} gave no answer within {PROBE_LIMIT_SECONDS:g} s"
    return Availability(False, reason, broken=True), max(seconds, PROBE_LIMIT_SECONDS)


def _ask(reference: str) -> _Question:
    """Start a probe in a thread of its own, which is left behind if it does not come back."""
    question = _Question()

    def run() -> None:
        try:
            answer = contained(lambda: load_ref(reference)())
            if not isinstance(answer, Availability):
                raise TypeError(f"it returned {type(answer).__name__}, not Availability")
        except (Exception, KeyboardInterrupt) as error:  # Ctrl-C itself reaches the main thread alone
            answer = Availability(False, f"probe failed: {describe_failure(error)}", broken=True)
        question.answer = answer
        question.done.set()

    threading.Thread(target=run, name=f"probe {reference}", daemon=True).start()
    return question
