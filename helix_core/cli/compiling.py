"""Says on the terminal that a backend compiles kernels, which happens once on a machine and takes some seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from helix_core.events import Event, subscribe
from helix_core.streams import tell


@contextmanager
def compile_notices() -> Iterator[None]:
    """One line when compilation begins, and one at the end with what it took."""
    seconds: list[float] = []
    begun: list[str] = []

    def observe(event: Event) -> None:
        if event.name == "compiling":
            if not begun:
                tell("compiling kernels for this machine; they are kept for the next time")
            begun.append(event.data["kernel"])
        elif event.name == "compiled":
            seconds.append(event.data["seconds"])

    with subscribe(observe):
        try:
            yield
        finally:
            if seconds:
                tell(f"compiled {len(seconds)} kernels in {sum(seconds):.1f} s")
