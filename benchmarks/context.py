"""Time and memory per token as the context grows: the Mamba model of `cpu.py`, from 1k tokens to 1M.

    python benchmarks/context.py [--json FILE] [--plot FILE] [--most 1048576]

Evaluation reads the text in chunks with the state carried over; training takes one step over the whole context with
`training.chunk`. Each length is a process of its own, whose largest memory is reported.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHUNK = 4096
TRAINED = 262144
"""The longest context that a training step is taken over."""


def measure(length: int, what: str) -> dict[str, object]:
    sys.path.insert(0, str(HERE))
    from helix_core import create

    backend = create("backend", "cpu")
    from helix_plugin_training.chunked import chunked_value_and_grad
    from peers import mamba

    model = mamba.model()
    params = {name: backend.asarray(a) for name, a in mamba.params().items()}
    F, F_infer = backend.bind(mode="train"), backend.bind(mode="infer")

    def evaluate(tokens, targets):
        nats = 0.0
        with backend.inference():
            state = model.init_state(F_infer, 1)
            for start in range(0, tokens.shape[1], CHUNK):
                logits, state = model.apply(F_infer, params, tokens[:, start : start + CHUNK], state=state)
                nats += float(F_infer.cross_entropy(logits, targets[:, start : start + CHUNK]).sum())
        return nats / tokens.shape[1]

    def train(tokens, targets):
        value, _ = chunked_value_and_grad(backend, model, F, F_infer, CHUNK)(params, tokens, targets)
        return float(value)

    run = evaluate if what == "evaluation" else train
    tokens, targets = (backend.asarray(a) for a in mamba.tokens([1, length]))
    run(tokens[:, :CHUNK], targets[:, :CHUNK])
    began = time.perf_counter()
    loss = run(tokens, targets)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "what": what,
        "tokens": length,
        "seconds": seconds,
        "us_per_token": 1e6 * seconds / length,
        "peak_rss_mib": round(peak),
        "nats": loss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--most", type=int, default=1 << 20)
    parser.add_argument("--one", nargs=2, metavar=("LENGTH", "WHAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(int(arguments.one[0]), arguments.one[1])))
        return
    rows = []
    for what, most in (("evaluation", arguments.most), ("training step", min(TRAINED, arguments.most))):
        length = 1024
        while length <= most:
            command = [sys.executable, __file__, "--one", str(length), what]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            row = rows[-1]
            print(
                f"{what:15}{length:9,} tokens {row['seconds']:8.2f} s {row['us_per_token']:7.1f} us/token "
                f"{row['peak_rss_mib']:6,} MiB",
                flush=True,
            )
            length *= 4
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.plot:
        plot(rows, arguments.plot)


def plot(rows: list[dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (time_axis, memory_axis) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for what in ("evaluation", "training step"):
        chosen = [row for row in rows if row["what"] == what]
        tokens = [row["tokens"] for row in chosen]
        time_axis.plot(tokens, [row["us_per_token"] for row in chosen], "o-", label=what)
        memory_axis.plot(tokens, [row["peak_rss_mib"] for row in chosen], "o-", label=what)
    for axis, label in ((time_axis, "µs per token"), (memory_axis, "peak memory of the process, MiB")):
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("tokens of context")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main()
