"""Choosing among ways to launch a kernel, by trying them: once for a card and a class of shapes, remembered on disk.

The file is `helix/cuda/CARD.json` in the user's cache folder (XDG_CACHE_HOME). HELIX_TUNE=0 takes the first way
instead, as do the interpreter and a graph that is being captured. Every way computes the same, to rounding.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import triton

from helix_plugin_cuda.kernels._launch import INTERPRETED

Way = Mapping[str, int]
VERSION = 1
"""Raised when the kernels' ways or what they are chosen by change."""


class Choices:
    """What was found for one card: an index of a way by kernel and shape class, kept in a file."""

    def __init__(self, path: Path, stamp: str) -> None:
        self.path, self.stamp = path, stamp
        self.known = self._read()

    def best(self, key: str, ways: Sequence[Way], run: Callable[[Way], Any], clock: Callable[..., float]) -> Way:
        """The fastest of the ways by `clock(function)`; those that fail are passed over, unless all do."""
        names = [json.dumps(dict(way), sort_keys=True) for way in ways]
        if self.known.get(key) in names:
            return ways[names.index(self.known[key])]
        times: dict[int, float] = {}
        failure: Exception | None = None
        for index, way in enumerate(ways):
            try:
                times[index] = clock(lambda way=way: run(way))
            except (triton.runtime.errors.OutOfResources, triton.CompilationError, RuntimeError) as error:
                failure = error
        if failure is not None and not times:
            raise failure
        fastest = min(times, key=times.__getitem__)
        self.known[key] = names[fastest]
        self._write()
        return ways[fastest]

    def _read(self) -> dict[str, str]:
        try:
            saved = json.loads(self.path.read_text(encoding="utf-8"))
            return dict(saved["choices"]) if saved["stamp"] == self.stamp else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{self.path} is not read, kernels are tuned anew: {error}", RuntimeWarning, stacklevel=2)
            return {}

    def _write(self) -> None:
        """With what other processes found meanwhile. Where no file can be written, the next process tunes again."""
        try:
            self.known = {**self._read(), **self.known}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.path.parent, prefix=self.path.stem, suffix=".part", delete=False, encoding="utf-8"
            ) as file:
                json.dump({"stamp": self.stamp, "choices": self.known}, file, indent=1)
            os.replace(file.name, self.path)
        except OSError as error:
            warnings.warn(f"what was tuned is not kept: {error}", RuntimeWarning, stacklevel=2)


def chosen(kernel: str, shape_class: Sequence[Any], ways: Sequence[Way], run: Callable[[Way], Any]) -> Way:
    """The way to launch a kernel for a class of shapes on the current card; `run(way)` does the work once."""
    if INTERPRETED or len(ways) == 1 or os.environ.get("HELIX_TUNE") == "0" or torch.cuda.is_current_stream_capturing():
        return ways[0]
    key = f"{kernel} {' '.join(map(str, shape_class))}"
    return _choices(torch.cuda.get_device_name()).best(key, ways, run, _milliseconds)


def size_class(n: int) -> int:
    """Sizes that share a choice: those with the same power of two above them."""
    return int(triton.next_power_of_2(max(n, 1)))


@cache
def _choices(card: str) -> Choices:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "helix" / "cuda"
    name = re.sub(r"[^A-Za-z0-9]+", "-", card).strip("-").lower()
    return Choices(folder / f"{name}.json", f"{VERSION}, triton {triton.__version__}, torch {torch.__version__}")


def _milliseconds(function: Callable[[], Any]) -> float:
    from triton.testing import do_bench

    return float(do_bench(function, warmup=5, rep=20, return_mode="median"))
