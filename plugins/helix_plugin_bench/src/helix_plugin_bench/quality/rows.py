"""What is measured: every row is a task, a setting and a model, and from it a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from helix_plugin_bench.quality.models import MODELS
from helix_plugin_lm.models import LanguageModel, ModelConfig
from helix_plugin_training.recipes import Recipe

SAMPLES = 500


@dataclass(frozen=True)
class Row:
    """One model on one task.

    data      the recipe's section [data]
    seq_len   length of its samples, or of the rows of bytes
    rates     learning rates tried; the best on held-out data counts
    lengths   also answered at these lengths, without further training
    enough    training ends early when this part of the held-out answers is right
    size      instead of d_model: the width is the one whose parameters come nearest to this number
    """

    task: str
    model: str
    data: dict[str, Any]
    seq_len: int
    steps: int
    batch_size: int
    setting: str = ""
    vocab_size: int = 256
    d_model: int = 64
    n_layers: int = 2
    size: int | None = None
    rates: tuple[float, ...] = (4e-3,)
    weight_decay: float = 0.0
    dropout: float = 0.0
    lengths: tuple[int, ...] = ()
    enough: float | None = None

    @property
    def name(self) -> str:
        """Task, setting and model in one word."""
        return "/".join(part for part in (self.task, self.setting, self.model) if part)

    def recipe(self, rate: float, seed: int) -> Recipe:
        """The run behind the row. Raises ConfigError if a layer refuses its options."""
        entry = MODELS[self.model]
        width = self.d_model if self.size is None else self._width(self.size)
        training: dict[str, Any] = {"steps": self.steps, "batch_size": self.batch_size}
        if "generator" not in self.data:
            training["seq_len"] = self.seq_len
        return Recipe.model_validate(
            {
                "name": self.name.replace("/", "."),
                "seed": seed,
                "model": {
                    **entry.model(width, self.n_layers, self.vocab_size, self.seq_len),
                    "dropout": self.dropout,
                },
                "data": self.data,
                "training": training,
                "optimizer": {"name": "adamw", "lr": rate, "weight_decay": self.weight_decay},
                "lr_schedule": {"name": "wsd", "warmup": max(1, min(50, self.steps // 10)), "decay": 0.3},
            }
        )

    def _width(self, size: int) -> int:
        def distance(width: int) -> int:
            config = MODELS[self.model].model(width, self.n_layers, self.vocab_size, self.seq_len)
            specs = LanguageModel(ModelConfig.model_validate(config)).param_specs()
            return abs(sum(prod(spec.shape) for spec in specs.values()) - size)

        return min(range(32, 513, 8), key=distance)


def _generator(name: str, **options: Any) -> dict[str, Any]:
    return {"generator": {"name": name, **options}, "validation_samples": SAMPLES}


def _selective_copying() -> Iterable[Row]:
    for model in ("mamba", "s4d", "hyena", "mamba2", "gated-deltanet", "rwkv7", "s4", "attention"):
        data = _generator("selective-copying", context=128, tokens=8)
        yield Row("selective-copying", model, data, seq_len=136, vocab_size=16, steps=1500, batch_size=32)


def _induction_heads() -> Iterable[Row]:
    powers = tuple(2**n for n in range(6, 17))
    for model in ("mamba", "attention", "hyena", "s4d", "mamba2", "gated-deltanet", "rwkv7"):
        yield Row(
            "induction-heads",
            model,
            _generator("induction-heads", seq_len=256),
            seq_len=256,
            vocab_size=16,
            steps=4000,
            batch_size=32,
            rates=(8e-3, 1e-3),
            lengths=tuple(n for n in powers if model != "attention" or n <= 2**13),
        )


def _parity() -> Iterable[Row]:
    for model in ("mamba3", "mamba2", "mamba", "gated-deltanet", "rwkv7", "attention"):
        yield Row(
            "parity",
            model,
            _generator("parity", seq_len=64),
            seq_len=64,
            vocab_size=2,
            steps=3000,
            batch_size=32,
            lengths=tuple(2**n for n in range(6, 11)),
            enough=0.9999,
        )


def _mqar() -> Iterable[Row]:
    for length, pairs in ((64, 4), (64, 8), (128, 16)):
        for width in (32, 64, 128):
            for model in ("attention", "hyena", "mamba", "mamba2", "gated-deltanet", "rwkv7"):
                yield Row(
                    "mqar",
                    model,
                    _generator("associative-recall", seq_len=length, pairs=pairs, vocab_size=128, random_filler=False),
                    seq_len=length,
                    setting=f"{pairs}-pairs-d{width}",
                    vocab_size=128,
                    d_model=width,
                    steps=6000,
                    batch_size=64,
                    rates=(2e-3,),
                    weight_decay=0.1,
                    enough=0.999,
                )


def _digits() -> Iterable[Row]:
    for model in ("s4d", "s4", "mamba", "mamba2", "gated-deltanet", "rwkv7", "hyena", "attention"):
        yield Row(
            "digits",
            model,
            {"generator": {"name": "digits"}, "validation_samples": 360},
            seq_len=65,
            vocab_size=18,
            n_layers=3,
            steps=1200,
            batch_size=32,
            weight_decay=0.1,
            dropout=0.1,
        )


def _listops() -> Iterable[Row]:
    for model in ("s4d", "s4", "mamba", "mamba2", "gated-deltanet", "rwkv7", "hyena", "attention"):
        data = _generator("listops", seq_len=64, max_depth=4)
        yield Row("listops", model, data, seq_len=64, vocab_size=17, n_layers=3, steps=2000, batch_size=32)


def _language() -> Iterable[Row]:
    for model in ("transformer", "mamba", "mamba2", "mamba3", "hyena", "s4d", "rwkv7-channel-mix", "gated-deltanet"):
        yield Row(
            "stdlib",
            model,
            {"source": "stdlib"},
            seq_len=256,
            size=500_000,
            n_layers=3,
            steps=800,
            batch_size=8,
            weight_decay=0.1,
        )


def rows(words: Sequence[str] = ()) -> list[Row]:
    """The rows whose name has one of the words in it; all without words."""
    parts = (_selective_copying, _induction_heads, _parity, _mqar, _digits, _listops, _language)
    every = [row for part in parts for row in part()]
    return [row for row in every if not words or any(word in row.name for word in words)]
