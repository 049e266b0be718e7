"""Peak memory of a training step against depth, with and without `model.reversible`.

    python benchmarks/reversible.py [--plot docs/reversible.png]

Each number is from a process of its own: the peak of its resident memory over two steps, less what it held before the
first. Parameters, gradients and the optimizer's moments are in it; activations are most of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

DEPTHS = (2, 4, 8, 16)
ROWS, LENGTH, WIDTH = 2, 1024, 64


def step_memory(depth: int, reversible: bool) -> dict[str, float]:
    """MiB, and seconds of the last of two steps."""
    import resource
    import time

    import numpy as np

    import helix_core
    from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
    from helix_plugin_training.reversible import reversible_value_and_grad

    backend = helix_core.create("backend")
    config = {
        "d_model": WIDTH,
        "n_layers": depth,
        "mixer": {"name": "mamba"},
        "mlp": {"name": "swiglu"},
        "reversible": reversible,
    }
    model = LanguageModel(ModelConfig.model_validate(config))
    F, F_infer = backend.bind(mode="train"), backend.bind(mode="infer")
    if reversible:
        gradient = reversible_value_and_grad(backend, model, F, F_infer)
    else:
        gradient = backend.value_and_grad(lambda p, tokens, targets: loss(model, F, p, tokens, targets))
    params = {name: backend.asarray(value) for name, value in model.init(0).items()}
    few = [backend.asarray(np.zeros((1, 8), np.int64))] * 2
    gradient(params, *few)  # kernels are compiled and loaded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = [backend.asarray(np.random.default_rng(i).integers(256, size=(ROWS, LENGTH))) for i in range(2)]
    for _ in range(2):
        began = time.perf_counter()
        gradient(params, *rows)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"depth": depth, "reversible": reversible, "mib": (peak - before) / 1024, "seconds": seconds}


def plot(found: list[dict[str, float]], path: str) -> None:
    """Memory against depth, a line for each kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    for reversible, label in ((False, "residual"), (True, "reversible")):
        points = [row for row in found if row["reversible"] == reversible]
        axes.plot([p["depth"] for p in points], [p["mib"] for p in points], marker="o", label=label)
    axes.set_xlabel("blocks (Mamba and SwiGLU)")
    axes.set_ylabel("MiB of a training step")
    axes.set_title(f"{ROWS} rows of {LENGTH} bytes, d_model {WIDTH}")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", metavar="FILE", help="write a picture")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(step_memory(int(options.one[0]), options.one[1] == "True")))
        return
    found = []
    for depth in DEPTHS:
        for reversible in (False, True):
            command = [sys.executable, __file__, "--one", str(depth), str(reversible)]
            row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            kind = "reversible" if reversible else "residual"
            print(f"{depth:3} blocks  {kind:10}  {row['mib']:7.0f} MiB  {row['seconds']:6.2f} s", flush=True)
            found.append(row)
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
