"""llama.cpp, which times itself: `llama-bench` from HELIX_LLAMA_BENCH, models from HELIX_LLAMA_MODELS."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from side_by_side.row import NotHere


def timed(file: str, prompt: int, generated: int) -> Callable[[], float]:
    """Seconds of one run after llama-bench's own warm-up."""
    program, folder = os.environ.get("HELIX_LLAMA_BENCH"), os.environ.get("HELIX_LLAMA_MODELS")
    if not program or not folder:
        raise NotHere("HELIX_LLAMA_BENCH and HELIX_LLAMA_MODELS do not say where llama.cpp is")
    path = Path(folder) / f"mamba-130m-{file}.gguf"
    if not path.exists():
        raise NotHere(f"there is no {path.name} in HELIX_LLAMA_MODELS")
    command = [program, "-m", str(path), "-t", os.environ["OMP_NUM_THREADS"], "-p", str(prompt), "-n", str(generated)]
    command += ["-r", "1", "-o", "json"]

    def run() -> float:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout)[0]["avg_ns"]) * 1e-9

    return run


def decode(file: str, tokens: int) -> Callable[[], float]:
    """Seconds for so many tokens, at the speed of 64."""
    run = timed(file, 0, 64)
    return lambda: run() * tokens / 64


def prefill(length: int) -> Callable[[], float]:
    return timed("f32", length, 0)
