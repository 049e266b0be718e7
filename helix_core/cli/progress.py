"""What a user sees while a run goes on: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO, cast

from helix_core.streams import Forgiving
from helix_core.terminal import escape, terminal_of

LINE_SECONDS = 5.0


class Progress:
    """Step, loss, bits/byte, bytes/s and time left.

    stream   where to write; a bar is drawn only if it is a terminal
    """

    def __init__(self, total: int, *, done: int = 0, stream: TextIO | None = None, label: str = "training") -> None:
        self.total, self.done, self.label = total, done, label
        # A run goes on where nobody can be told of it.
        self.stream = cast(TextIO, Forgiving(stream or sys.stderr))
        self._bar: Any = None
        self._task: Any = None
        self._last_line = 0.0

    def __enter__(self) -> Progress:
        if self.stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
                console=Console(file=terminal_of(self.stream)),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, note: str, *, seconds_left: float | None = None) -> None:
        """Show that `done` of the total is finished, with a note beside it."""
        self.done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if done >= self.total or now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            left = "" if seconds_left is None else f"  {seconds_left:.0f} s left"
            print(f"{self.label} {done}/{self.total}  {note}{left}", file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._bar is not None:
            self._bar.console.print(escape(text), highlight=False, markup=False)
        else:
            print(text, file=self.stream, flush=True)
