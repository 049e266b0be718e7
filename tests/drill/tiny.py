"""The tiny run of the drill, and what must be equal between a run that was disturbed and one that was not."""

import json

RECIPE = """\
name = "drill"
seed = 7
model = {{ d_model = 8, n_layers = 1, mixer = {{ name = "mamba", d_state = 4 }} }}
data = {{ source = "{data}", validation = 0.2 }}
training = {{ steps = {steps}, batch_size = 2, seq_len = 16, checkpoint_every = 3, keep = 3, eval_every = 5 }}
optimizer = {{ name = "adamw", lr = 3e-3 }}
backend = {{ name = "cpu" }}
sample = {{ max_bytes = 3 }}
"""
STEPS = 14


class Wrong(Exception):
    """Something did not hold."""


def check(condition, message):
    if not condition:
        raise Wrong(message)


def write_data(folder):
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.txt").write_text(f"line {i}: the quick brown fox jumps over the lazy dog\n" * 6)
    return folder


def write_recipe(file, data, steps=STEPS):
    file.write_text(RECIPE.format(data=data, steps=steps))
    return file


def begun(runs):
    """The newest run under a folder that has a recipe, or None."""
    found = [path for path in runs.glob("drill-*") if (path / "recipe.toml").exists()]
    return max(found, key=lambda path: path.stat().st_mtime_ns) if found else None


def result(run):
    """Everything of a finished run that does not depend on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keep = ("step", "loss", "grad_norm", "lr", "val_bits_per_byte")
    for line in (run / "events.jsonl").read_text().splitlines():
        json.loads(line)
    newest = max((run / "checkpoints").glob("step-*"))
    summary = json.loads((run / "summary.json").read_text())
    return {
        "metrics": [{key: line[key] for key in keep if key in line} for line in lines],
        "weights": (newest / "model.safetensors").read_bytes(),
        "moments": (newest / "optimizer.safetensors").read_bytes(),
        "held out": summary["val_bits_per_byte"],
        "steps": summary["steps"],
        "sample": (run / summary["sample"]).read_bytes(),
        "leftovers": [path.name for path in run.rglob(".*")],
    }


def compare(run, whole):
    """Raise Wrong unless a finished run equals the undisturbed one bit by bit."""
    found = result(run)
    for key, value in whole.items():
        check(found[key] == value, f"{key} of {run} are not those of the undisturbed run: {found[key]!r:.2000}")


def refused(life, code, *words):
    """Raise Wrong unless a command ended as one that says what is wrong."""
    ended = life.wait()
    check(ended == code, f"it ended with {ended}, not {code}: {life.output}")
    check("error: " in life.output, f"it did not say what is wrong: {life.output}")
    for bad in ("Traceback", "HELIX_DEBUG"):
        check(bad not in life.output, f"it broke: {life.output}")
    for word in words:
        check(str(word) in life.output, f"it did not say {word!r}: {life.output}")


def succeeded(life):
    ended = life.wait()
    check(ended == 0, f"it ended with {ended}: {life.output}")
