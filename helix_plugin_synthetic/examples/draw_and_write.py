"""A generator of your choice: looked at, drawn from in any order, written as shards, and read back.

python helix_plugin_synthetic/examples/draw_and_write.py
"""

import tempfile
from pathlib import Path

import numpy as np

from helix_core import create
from helix_core.cli.main import main
from helix_plugin_synthetic.storage import open_dataset

# A task: pairs of a key and a value, then queries; only the answers are scored.
task = create("generator", "associative-recall", seq_len=32, pairs=4, vocab_size=64)
sample = task.sample(seed=0, index=7)
scored = sample["mask"]
print("inputs: ", sample["inputs"])
print("answers:", sample["targets"][scored], "at", np.flatnonzero(scored))

# Any order, any worker: sample 7 is sample 7.
batch = task.batch(seed=0, indices=[9, 7], fields=["inputs"])
assert np.array_equal(batch["inputs"][1], sample["inputs"])

# A thousand samples as Parquet, by the same command that a shell would give.
with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "recall"
    code = main(["data", "generate", "associative-recall", "--out", str(out), "-n", "1000", "--seed", "0",
                 "--set", "seq_len=32", "--set", "pairs=4", "--set", "vocab_size=64"])  # fmt: skip
    assert code == 0
    dataset = open_dataset(out)
    seventh = next(again for index, again in enumerate(dataset) if index == 7)
    assert np.array_equal(seventh["inputs"], sample["inputs"])
    print("read back:", len(dataset), "samples, the seventh as it was drawn")
