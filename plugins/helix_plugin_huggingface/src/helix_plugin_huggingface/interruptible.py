"""Long reads with a progress bar, stopped between two tensors by Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from helix_core.cli.progress import Progress
from helix_core.errors import Interrupted
from helix_plugin_lm.runs.signals import StopRequest
from helix_plugin_lm.storage.tensor_file import Tensor


class Interruptible:
    """Counts bytes as tensors are read, and raises Interrupted once a stop was asked for."""

    def __init__(self, bar: Progress, stop: StopRequest) -> None:
        self._bar, self._stop = bar, stop

    def check(self) -> None:
        """Raise Interrupted if somebody asked to stop."""
        if self._stop.requested:
            raise Interrupted(f"stopped by {self._stop.requested}; nothing was written")

    def wrap(self, tensor: Tensor) -> Tensor:
        """A tensor whose reading moves the progress bar, and can be interrupted."""

        def read() -> np.ndarray:
            self.check()
            values = tensor.read()
            self._bar.update(self._bar.done + tensor.bytes, "bytes")
            return values

        return replace(tensor, read=read)


@contextmanager
def interruptible(tensors: Mapping[str, Tensor], label: str) -> Iterator[tuple[dict[str, Tensor], Interruptible]]:
    """The same tensors under a progress bar, stopped by Ctrl-C or SIGTERM between two of them."""
    with StopRequest() as stop, Progress(sum(t.bytes for t in tensors.values()), label=label) as bar:
        watch = Interruptible(bar, stop)
        yield {name: watch.wrap(tensor) for name, tensor in tensors.items()}, watch
