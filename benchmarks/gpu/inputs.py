"""Inputs of the sizes that models have, as NumPy arrays by name, for every op that is timed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Work:
    """One op on one set of inputs; `compiled` if its reference is worth giving to torch.compile (no loop over time),
    `decoding` if nobody trains on them, `rate` if it multiplies in another dtype than that of its inputs.
    """

    op: str
    label: str
    shapes: dict[str, tuple[int, ...]]
    attrs: dict[str, Any] = field(default_factory=dict)
    compiled: bool = False
    decoding: bool = False
    rate: str | None = None

    def arrays(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Fresh random inputs: decays below one, steps and rates positive, keys of unit norm."""
        made: dict[str, np.ndarray] = {}
        for name, shape in self.shapes.items():
            values = rng.standard_normal(shape, dtype=np.float32)
            if name == "A":
                values = -np.abs(values) - 0.1
            elif name in ("a", "beta"):
                values = 1 / (1 + np.exp(-values))
            elif name == "log_decay":
                values = -np.abs(values) * 0.1
            elif name in ("delta", "dt"):
                values = np.abs(values) * 0.1
            elif name == "log_a":
                values[..., 0] = -np.abs(values[..., 0]) * 0.1
            elif name == "k" and len(shape) == 4:
                values /= np.linalg.norm(values, axis=-1, keepdims=True)
            elif name == "packed":
                codes = rng.integers(3, size=(4, *shape), dtype=np.uint8)
                values = codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6
            elif name == "targets":
                classes = self.shapes["logits"][-1] if "logits" in self.shapes else self.shapes["weight"][0]
                values = rng.integers(classes, size=shape)
            made[name] = values
        if self.op == "rwkv7":
            removed = made["b"] / np.linalg.norm(made["b"], axis=-1, keepdims=True)
            made["a"], made["b"] = -removed, removed * made["a"]
        return made


def works() -> Iterator[Work]:
    """Everything that is timed."""
    rows, D = 16384, 2048
    for width in (1024, 4096):
        shapes = {"x": (rows, width), "weight": (width,)}
        yield Work("rms_norm", f"({rows}, {width})", shapes, compiled=True)
        yield Work("add_rms_norm", f"({rows}, {width})", {**shapes, "residual": (rows, width)}, compiled=True)
    yield Work("swiglu", f"({rows}, {4 * D})", dict.fromkeys(("gate", "x"), (rows, 4 * D)), compiled=True)
    yield Work("cross_entropy", "(8192, 50304)", {"logits": (8192, 50304), "targets": (8192,)}, compiled=True)
    head = {"x": (8192, D), "weight": (50304, D), "targets": (8192,)}
    yield Work("linear_cross_entropy", f"(8192, {D}) to 50304", head, compiled=True)
    for B, L in ((8, 2048), (1, 65536)):
        sequence = (B, L, D)
        yield Work(
            "causal_conv1d", f"({B}, {L}, {D}), 4 taps", {"x": sequence, "weight": (D, 4), "bias": (D,)},
            {"activation": "silu"}, compiled=True,
        )  # fmt: skip
        scan = {"u": sequence, "delta": sequence, "A": (D, 16), "B": (B, L, 16), "C": (B, L, 16)}
        yield Work(
            "selective_scan", f"({B}, {L}, {D}), N 16", {**scan, "D": (D,), "z": sequence, "delta_bias": (D,)},
            {"delta_softplus": True},
        )  # fmt: skip
        system = dict.fromkeys(("log_a", "c"), (D, 32, 2))
        yield Work("diagonal_ssm", f"({B}, {L}, {D}), N 32", {"u": sequence, **system})
        yield Work(
            "wkv4", f"({B}, {L}, {D})", {"k": sequence, "v": sequence, "log_decay": (D,), "bonus": (D,)}
        )  # fmt: skip
    for B, L in ((8, 2048), (2, 16384), (1, 131072)):
        sequence = (B, L, 768)
        gated = {"u": sequence, "filter": (L, 768), "pre": sequence, "post": sequence}
        yield Work("long_conv", f"{sequence}, gated", gated)
    for L in (2048, 32768, 65536):
        yield Work("linear_scan", f"(8, {L}, 1536)", {"a": (8, L, 1536), "x": (8, L, 1536)})
    for B, L in ((8, 2048), (2, 16384)):
        yield Work(
            "ssd", f"({B}, {L}), 32 heads of 64, N 128",
            {"x": (B, L, 32, 64), "dt": (B, L, 32), "A": (32,), "B": (B, L, 1, 128), "C": (B, L, 1, 128), "D": (32,)},
        )  # fmt: skip
        heads = dict.fromkeys(("q", "k", "v"), (B, L, 16, 128))
        label = f"({B}, {L}), 16 heads of 128"
        scale = {"scale": 128**-0.5}
        yield Work("gated_linear_attention", label, {**heads, "log_decay": (B, L, 16, 128)}, scale)
        yield Work("gated_linear_attention", f"{label}, a gate each", {**heads, "log_decay": (B, L, 16, 1)}, scale)
        rates = dict.fromkeys(("log_decay", "beta"), (B, L, 16))
        yield Work("gated_delta_rule", label, {**heads, **rates}, scale)
        names = ("r", "log_decay", "k", "v", "a", "b")
        yield Work("rwkv7", f"({B}, {L}), 32 heads of 64", dict.fromkeys(names, (B, L, 32, 64)))
    for count in (1, 16, 2048):
        shapes = {"x": (count, 2560), "packed": (6912, 640), "scale": (1,)}
        yield Work("bit_linear", f"({count}, 2560) to 6912", shapes, decoding=True, rate="int8")
    yield from decoding()


def decoding() -> Iterator[Work]:
    """One step of many rows, from their states."""
    B, D, N = 64, 4096, 16
    step = (B, 1, D)
    taps = {"x": step, "weight": (D, 4), "bias": (D,), "initial_state": (B, 3, D)}
    yield Work("causal_conv1d", f"one step of {B}, {D} channels", taps, {"activation": "silu"}, decoding=True)
    scan = {"u": step, "delta": step, "A": (D, N), "B": (B, 1, N), "C": (B, 1, N), "initial_state": (B, D, N)}
    yield Work("selective_scan", f"one step of {B}, {D} channels, N {N}", scan, decoding=True)
    modes = {"u": step, "log_a": (D, 32, 2), "c": (D, 32, 2), "initial_state": (B, D, 32, 2)}
    yield Work("diagonal_ssm", f"one step of {B}, {D} channels, N 32", modes, decoding=True)
    average = {**dict.fromkeys(("k", "v"), step), "log_decay": (D,), "bonus": (D,), "initial_state": (B, 2, D)}
    yield Work("wkv4", f"one step of {B}, {D} channels", average, decoding=True)
    H, K = 32, 128
    label, heads = f"one step of {B}, {H} heads of {K}", dict.fromkeys(("q", "k", "v"), (B, 1, H, K))
    state = {"initial_state": (B, H, K, K)}
    yield Work("gated_linear_attention", label, {**heads, "log_decay": (B, 1, H, K), **state}, decoding=True)
    rates = dict.fromkeys(("log_decay", "beta"), (B, 1, H))
    yield Work("gated_delta_rule", label, {**heads, **rates, **state}, decoding=True)
    inputs = {"x": (B, 1, H, 64), "dt": (B, 1, H), "A": (H,), **dict.fromkeys(("B", "C"), (B, 1, 1, K)), "D": (H,)}
    inputs["initial_state"] = (B, H, K, 64)
    yield Work("ssd", f"one step of {B}, {H} heads of 64, N {K}", inputs, decoding=True)
    names = ("r", "log_decay", "k", "v", "a", "b")
    inputs = {**dict.fromkeys(names, (B, 1, H, 64)), "initial_state": (B, H, 64, 64)}
    yield Work("rwkv7", f"one step of {B}, {H} heads of 64", inputs, decoding=True)
