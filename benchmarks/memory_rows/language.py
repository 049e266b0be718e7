"""Held-out bits/byte of small Mambas with and without memory, at equal parameters, on three corpora."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from helix_core import create
from helix_plugin_training import gzip_bits_per_byte
from helix_plugin_training.data import load_corpus
from helix_plugin_training.data.corpus import Document
from helix_plugin_training.evaluation.memory import evaluate_with_memory, fill
from helix_plugin_training.recipes import Recipe
from helix_plugin_training.trainer import Trainer


def logs(rng: np.random.Generator, lines: int) -> bytes:
    """A server's log: templates that recur with names and numbers that differ."""
    names = ["".join(map(chr, rng.integers(97, 123, size=8))) for _ in range(40)]
    forms = [
        "{t} INFO  request from {a} to /api/v1/{b}/items took {n} ms status 200\n",
        "{t} WARN  connection to {a} was closed by peer after {n} retries\n",
        "{t} ERROR worker {a} failed: KeyError in {b}.handlers.update_index line {n}\n",
        "{t} INFO  cache of {b} evicted {n} entries, user {a} logged out\n",
    ]
    out, t = [], 1_700_000_000
    for _ in range(lines):
        t += int(rng.integers(1, 9))
        a, b = (names[i] for i in rng.integers(40, size=2))
        out.append(forms[rng.integers(4)].format(t=t, a=a, b=b, n=rng.integers(1, 999)))
    return "".join(out).encode()


def chain(rng: np.random.Generator, length: int) -> bytes:
    """Letters of a first-order Markov chain: nothing recurs but its transitions."""
    jump = rng.dirichlet(np.full(27, 0.3), size=27).cumsum(axis=1)
    out, u = np.zeros(length, np.uint8), rng.random(length)
    for t in range(1, length):
        out[t] = min(26, int(np.searchsorted(jump[out[t - 1]], u[t])))
    return (out + 97).tobytes()


def run(*, small: bool) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    steps, held_out, kept = (40, 6000, 10_000) if small else (250, 30_000, 50_000)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {"log": logs(rng, 6000), "chain": chain(rng, 400_000), "stdlib": None}.items():
            source = "stdlib"
            if text is not None:
                source = str(Path(folder) / name)
                Path(source).write_bytes(text)
            rows.append({"corpus": name, **_compare(source, steps, held_out, kept)})
            print(rows[-1], flush=True)
    return {"steps": steps, "rows": rows}


def _compare(source: str, steps: int, held_out: int, kept: int) -> dict[str, Any]:
    recipe = Recipe.model_validate(
        {
            "name": "memory-benchmark",
            "model": {"d_model": 96, "n_layers": 2, "mixer": {"name": "mamba", "d_state": 16}},
            "training": {"steps": steps, "batch_size": 8, "seq_len": 256},
            "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 0.1},
            "lr_schedule": {"name": "wsd", "warmup": 20, "decay": 0.4},
        }
    )
    trainer = Trainer(recipe, load_corpus(source, 0.1))
    for _ in range(steps):
        trainer.advance(steps)
    model = (trainer.model, trainer.backend, trainer.F_infer, trainer.params)
    documents, room = [], held_out
    for document in trainer.corpus.validation:
        if room > 0:
            documents.append(Document(document.name, document.data[: min(room, 8000)]))
            room -= len(documents[-1])
    result: dict[str, Any] = {"parameters": trainer.parameters, "gzip": gzip_bits_per_byte(documents)}
    for label, stored, online in (("stored", kept, False), ("online", 0, True), ("both", kept, True)):
        memory = create("memory", "topological", dim=96, mix=1.0, expansion_add=64, expansion_search=64)
        fill(memory, *model, trainer.corpus.train, stored)
        found = evaluate_with_memory(memory, *model, documents, online=online)
        result["without"] = round(found.model_bits_per_byte, 4)
        result[label] = round(found.bits_per_byte, 4)
        result[f"{label}_share"] = round(found.share, 3)
        result[f"{label}_change_percent"] = round(100 * (found.bits_per_byte / found.model_bits_per_byte - 1), 2)
    result["bytes"] = sum(map(len, documents))
    return result
