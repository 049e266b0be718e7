"""What the op table costs: a d_model 512 Mamba block through `F` beside the same block written by hand in torch.

Both call the same kernels and torch functions, alternate in one process, and are compared by the median of paired
ratios; forward and forward + backward.

    python benchmarks/op_table.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from helix_core import create
from helix_core.kinds.params import init_params

PAIRS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    backend = create("backend", "cpu")
    F = backend.bind(mode="train")
    layer = create("layer", "mamba", d_model=512)
    E, N, R = layer.config.d_inner, layer.config.d_state, layer.config.rank
    p = {k: backend.asarray(v).requires_grad_(True) for k, v in init_params(layer.param_specs(), 0).items()}

    def by_hand(x: torch.Tensor) -> torch.Tensor:
        uz = torch.nn.functional.linear(x, p["in_proj.weight"])
        u, _ = conv(uz[..., :E], p["conv1d.weight"], p["conv1d.bias"], activation="silu")
        dbc = torch.nn.functional.linear(u, p["x_proj.weight"])
        delta = torch.nn.functional.linear(dbc[..., :R], p["dt_proj.weight"])
        A = -torch.exp(p["A_log"])
        B, C = dbc[..., R : R + N], dbc[..., R + N :]
        y, _ = scan(u, delta, A, B, C, p["D"], uz[..., E:], p["dt_proj.bias"], delta_softplus=True)
        return torch.nn.functional.linear(y, p["out_proj.weight"])

    conv, scan = F.causal_conv1d, F.selective_scan

    def through_table(x: torch.Tensor) -> torch.Tensor:
        return layer.apply(F, p, x)[0]

    rows = []
    for shape in ((1, 1, 512), (1, 64, 512), (2, 256, 512), (4, 1024, 512)):
        x = torch.randn(shape)
        assert torch.equal(by_hand(x), through_table(x))
        for what, run in (("forward", forward), ("forward + backward", training)):
            ratio, table, hand = compare(partial(run, through_table, x), partial(run, by_hand, x))
            rows.append({"shape": shape, "what": what, "table_s": table, "hand_s": hand, "ratio": ratio})
            print(f"{shape!s:18}{what:20}{table * 1e3:9.3f} ms  by hand {hand * 1e3:9.3f} ms  ratio {ratio:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def forward(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    with torch.no_grad():
        function(x)


def training(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    function(x).sum().backward()


def compare(first: Callable[[], None], second: Callable[[], None]) -> tuple[float, float, float]:
    """The median of paired ratios, and both medians in seconds; the order within pairs alternates."""
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(PAIRS + 3):
        for which in (0, 1) if i % 2 else (1, 0):
            began = time.perf_counter()
            (first, second)[which]()
            if i >= 3:
                times[which].append(time.perf_counter() - began)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return ratio, statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
