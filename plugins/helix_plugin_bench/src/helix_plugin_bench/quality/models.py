"""The models that are compared: a line each, from the width to the layers of a block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any

Component = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """The layers that every block of a model has.

    mixer   `(d_model, seq_len) -> layer and its options`
    mlp     a second layer in every block, where the architecture has one
    """

    mixer: Callable[[int, int], Component]
    mlp: Component | None = None

    def layers(self) -> set[str]:
        """The names of the layers it is made of."""
        parts = [self.mixer(64, 64), self.mlp or {}]
        return {part["name"] for part in parts if part}

    def model(self, d_model: int, n_layers: int, vocab_size: int, seq_len: int) -> dict[str, Any]:
        """The recipe's section [model]."""
        parts: dict[str, Any] = {"mixer": self.mixer(d_model, seq_len)}
        if self.mlp:
            parts["mlp"] = self.mlp
        return {"vocab_size": vocab_size, "d_model": d_model, "n_layers": n_layers, **parts}


def _heads(d: int) -> int:
    """Heads of 32 channels, or of some more where that does not go into d."""
    return next(h for h in range(max(1, d // 32), 0, -1) if d % (2 * h) == 0)


MODELS: dict[str, Entry] = {
    "attention": Entry(lambda d, L: {"name": "attention", "n_heads": _heads(d), "max_length": 2**13}),
    # Windows of the training length see all that full attention would there, and then read documents of any length.
    "transformer": Entry(lambda d, L: {"name": "attention", "n_heads": _heads(d), "window": L}, mlp={"name": "swiglu"}),
    "mamba": Entry(lambda d, L: {"name": "mamba", "d_state": 16}),
    "mamba2": Entry(lambda d, L: {"name": "mamba2", "d_state": 64, "head_dim": gcd(2 * d, 32)}),
    "mamba3": Entry(lambda d, L: {"name": "mamba3", "d_state": 64, "head_dim": gcd(2 * d, 32)}),
    "gated-deltanet": Entry(lambda d, L: {"name": "gated_deltanet", "n_heads": _heads(d)}),
    "rwkv7": Entry(lambda d, L: {"name": "rwkv7", "head_dim": gcd(d, 32)}),
    "rwkv7-channel-mix": Entry(
        lambda d, L: {"name": "rwkv7", "head_dim": gcd(d, 32)}, mlp={"name": "rwkv7_channel_mix"}
    ),
    "hyena": Entry(lambda d, L: {"name": "hyena", "l_max": L, "filter_emb_dim": 17, "filter_freq": 10.0}),
    "s4": Entry(lambda d, L: {"name": "s4"}),
    "s4d": Entry(lambda d, L: {"name": "s4d", "d_state": 64}),
}


def missing(model: str) -> list[str]:
    """The layers of a model that no installed plugin provides."""
    from helix_core.plugin_system import components

    here = {component.name for component in components("layer")}
    return sorted(MODELS[model].layers() - here)
