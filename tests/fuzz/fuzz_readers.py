"""Every reader of files that a stranger could have made: a small valid sample of each, and how it is read.

A reader reads all that a file holds, and does with it what its user does next: what was let in must not break later.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutations import Files


@dataclass(frozen=True)
class Reader:
    """`make` writes a valid sample into a folder, `read` reads one, `sign` gives damaged files their new hashes.

    `make` returns what `read` is given beside the folder.
    """

    make: Callable[[Path], Any]
    read: Callable[[Path, Any], Any]
    sign: Callable[[Files], None] | None = None


Pair = tuple[Callable[[Path], Any], Callable[[Path, Any], Any]]
"""A reader's `make` and `read`."""

READERS: dict[str, Callable[[], Reader]] = {}
"""By name; what they import is imported when they are called."""


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _reader(name: str, sign: Callable[[Files], None] | None = None) -> Callable[[Callable[[], Pair]], Any]:
    def add(pair: Callable[[], Pair]) -> None:
        READERS[name] = lambda: Reader(*pair(), sign)

    return add


# Files that list the hashes of others.


def sign_listed(files: Files) -> None:
    """Checkpoints: `manifest.json` lists files beside it."""
    for name in [n for n in files if n.endswith("manifest.json")]:
        _sign(files, name, _list_files)


def sign_store(files: Files) -> None:
    """Memory stores: the same, as a text with its own hash."""

    def sealed(outer: Any, beside: Files) -> None:
        try:
            inner = json.loads(outer["manifest"])
            _list_files(inner, beside)
            outer["manifest"] = json.dumps(inner)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # the inside is damaged, and what seals it is not
        outer["blake2b"] = digest(outer["manifest"].encode())

    for name in [n for n in files if n.endswith("manifest.json")]:
        _sign(files, name, sealed)


def sign_shards(files: Files) -> None:
    """Datasets: `manifest.json` lists shards."""

    def shards(manifest: Any, beside: Files) -> None:
        for record in manifest["shards"]:
            data = beside[record["file"]]
            record |= {"bytes": len(data), "blake2b": digest(data)}

    for name in [n for n in files if n.endswith("manifest.json")]:
        _sign(files, name, shards)


def _list_files(manifest: Any, beside: Files) -> None:
    for name, entry in manifest["files"].items():
        if name in beside:
            entry |= {"bytes": len(beside[name]), "blake2b": digest(beside[name])}


def _sign(files: Files, name: str, change: Callable[[Any, Files], None]) -> None:
    folder = name.removesuffix("manifest.json")
    beside = {path.removeprefix(folder): data for path, data in files.items() if path.startswith(folder)}
    try:
        manifest = json.loads(files[name])
        change(manifest, beside)
        files[name] = json.dumps(manifest).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # damaged itself


# The core's formats.

RECIPE = """
name = "tiny"
[model]
d_model = 8
n_layers = 2
mixer = {name = "mamba", d_state = 4}
mlp = {name = "swiglu", d_ff = 8}
[data]
source = "nothing"
[training]
steps = 4
batch_size = 2
[optimizer]
name = "adamw"
lr = 1e-3
"""


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a": rng.standard_normal((3, 4)).astype(np.float32),
        "b.c": rng.integers(0, 9, 5),
        "empty": np.empty((0, 2), np.float64),
        "flags": np.array([True, False]),
        "scalar": np.array(1, np.float32),
    }


@_reader("safetensors")
def safetensors() -> Pair:
    from helix_plugin_lm.storage.tensor_file import open_tensors, write_tensors

    def read(folder: Path, _: Any) -> None:
        for tensor in open_tensors(folder / "x.safetensors").values():
            tensor.numpy()

    return lambda folder: write_tensors(folder / "x.safetensors", arrays(), {"format": "pt"}) and None, read


@_reader("checkpoint", sign_listed)
def checkpoint() -> Pair:
    from helix_plugin_lm.runs.checkpoint import load_checkpoint, save_checkpoint

    def make(folder: Path) -> None:
        save_checkpoint(folder, 5, arrays(), {"m/a": arrays()["a"]}, {"train_seconds": 1.5, "data": "f"})

    return make, lambda folder, _: load_checkpoint(folder / "step-00000005")


def make_run(folder: Path, recipe: str = RECIPE) -> Any:
    """A run folder with a checkpoint of step 5; returns its model."""
    from helix_plugin_lm.models import LanguageModel
    from helix_plugin_lm.runs.checkpoint import save_checkpoint
    from helix_plugin_lm.runs.run_folder import JsonLines, RunFolder
    from helix_plugin_training.recipes.load import dump_recipe, parse_recipe

    run = RunFolder(folder)
    parsed = parse_recipe(recipe, "here")
    run.write_recipe(dump_recipe(parsed))
    model = LanguageModel(parsed.model)
    params = model.init(0)
    save_checkpoint(run.checkpoints, 5, params, {}, {"train_seconds": 1.0, "data": "f", "backend": "reference"})
    lines = JsonLines(run.metrics_file)
    for step in range(1, 6):
        lines.write(step=step, loss=5.0 / step, bits_per_byte=7.0 / step, lr=1e-3, train_seconds=float(step))
    lines.close()
    run.write_summary({"steps": 5, "val_bits_per_byte": 2.5, "sample": "samples/x.txt", "kernels": {"linear": "x"}})
    return model


@_reader("run folder", sign_listed)
def run_folder() -> Pair:
    from helix_plugin_lm.runs import load_run
    from helix_plugin_lm.runs.run_folder import RunFolder

    def read(folder: Path, _: Any) -> None:
        run = RunFolder(folder)
        problems = []
        for part in (lambda: list(run.metrics()), run.summary, lambda: load_run(folder, backend="reference")):
            problems += _attempt(part)
        if problems:
            raise problems[0]

    return lambda folder: make_run(folder) and None, read


@_reader("run folder with a tokenizer", sign_listed)
def run_folder_with_a_tokenizer() -> Pair:
    from helix_plugin_lm.runs import load_run

    def make(folder: Path) -> None:
        recipe = RECIPE.replace("d_model", "vocab_size = 300\nd_model")
        make_run(folder, recipe.replace('"nothing"', '"nothing"\ntokenizer = "t"'))
        make_tokenizer(folder)

    return make, lambda folder, _: load_run(folder, backend="reference")


@_reader("resumed metrics")
def resumed_metrics() -> Pair:
    from helix_plugin_lm.runs.run_folder import JsonLines, RunFolder

    def make(folder: Path) -> None:
        lines = JsonLines(folder / "metrics.jsonl")
        for step in range(1, 6):
            lines.write(step=step, loss=5.0 / step, grad_norm=float("inf"), note="a")
        lines.close()

    return make, lambda folder, _: list(RunFolder(folder).metrics())


def _attempt(part: Callable[[], Any]) -> list[Exception]:
    from helix_core.errors import HelixError

    try:
        part()
    except HelixError as error:
        return [error]
    return []


@_reader("saved state")
def saved_state() -> Pair:
    from helix_core.plugin_system import create
    from helix_plugin_lm.generation import Stopping, generate, read_state
    from helix_plugin_lm.tokenizers import BYTES

    def make(folder: Path) -> Any:
        aside = folder.with_name(f"{folder.name}-run")
        aside.mkdir()
        model = make_run(aside)
        shutil.rmtree(aside)
        backend: Any = create("backend", "reference")
        F = backend.bind(dtype="float32", mode="infer")
        params = {name: backend.asarray(value) for name, value in model.init(0).items()}
        text = generate(model, backend, F, params, b"ab", stopping=Stopping(3))
        b"".join(text)
        text.save().write(folder / "text.state", "me")
        return model, F, backend, params

    def read(folder: Path, given: Any) -> None:
        model, F, backend, params = given
        state = read_state(folder / "text.state", "me", model, F, BYTES)
        with np.errstate(all="ignore"):
            b"".join(generate(model, backend, F, params, b"", stopping=Stopping(2), resume=state))

    return make, read


@_reader("recipe")
def recipe() -> Pair:
    from helix_plugin_training.recipes import load_recipe

    return (lambda folder: (folder / "r.toml").write_text(RECIPE) and None), lambda folder, _: load_recipe(
        folder / "r.toml", ["seed=2"]
    )


@_reader("settings")
def settings() -> Pair:
    from helix_core.plugin_system.settings import load_settings

    text = 'strict = true\n[plugins]\nallow = ["a*"]\ndeny = []\n[pin]\nbackend = "cpu"\n'
    text += '[kernels]\nlinear = "core/reference"\n'

    def read(folder: Path, _: Any) -> None:
        load_settings({"HELIX_CONFIG": str(folder / "helix.toml"), "XDG_CONFIG_HOME": str(folder / "none")}, folder)

    return (lambda folder: (folder / "helix.toml").write_text(text) and None), read


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {sign: i + 1 for i, sign in enumerate(alphabet)} | {"ab": 257, "abc": 258}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b"), ("ab", "c")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token_id": 0, "eos_token_id": [0], "eos_token": {"content": "<|endoftext|>"}}
    (folder / "generation_config.json").write_text(json.dumps(config))


@_reader("tokenizer")
def tokenizer() -> Pair:
    from helix_plugin_lm.tokenizers import FileTokenizer

    def read(folder: Path, _: Any) -> None:
        tokenizer = FileTokenizer(folder / "tokenizer.json", separated=True)
        stream = tokenizer.stream()
        for token in tokenizer.prompt("abc é".encode())[:20]:
            stream.feed(int(token))

    return make_tokenizer, read


@_reader("prompts")
def prompts() -> Pair:
    from helix_plugin_lm.commands.generate import _read_prompts

    text = '"one"\n{"prompt": "two", "seed": 3}\n{"prompt": "three"}\n'

    def read(folder: Path, _: Any) -> None:
        if not (folder / "p.jsonl").is_fifo():  # a pipe is waited for on purpose: `--prompts <(command)`
            _read_prompts(folder / "p.jsonl", 0)

    return (lambda folder: (folder / "p.jsonl").write_text(text) and None), read


# Memories.


@_reader("memory store", sign_store)
def memory_store() -> Pair:
    from helix_plugin_lm.storage.store import load_store, save_store

    def make(folder: Path) -> None:
        save_store(folder, {"items": arrays(), "index": b"bytes" * 20}, {"memory": "x", "config": {"dim": 3}, "n": 4})

    return make, lambda folder, _: load_store(folder)


@_reader("topological memory", sign_store)
def topological_memory() -> Pair:
    from helix_plugin_topomemory.memory import TopologicalConfig, TopologicalMemory

    config = TopologicalConfig(dim=6, exact_below=0, connectivity=3, expansion_add=8, expansion_search=8, capacity=40)
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((3, 6)).astype(np.float32)

    def make(folder: Path) -> None:
        memory = TopologicalMemory(config)
        ids = memory.add(rng.standard_normal((48, 6)).astype(np.float32), np.arange(48) % 5)
        for _ in range(9):
            memory.associate(ids[:-1], ids[1:])
        memory.reinforce(ids[:9])
        memory.query(queries, 2)
        memory.consolidate()
        memory.save(folder)

    def read(folder: Path, _: Any) -> None:
        memory = TopologicalMemory(config)
        memory.load(folder)
        memory.query(queries, 4)
        ids = memory.add(queries)
        memory.associate(ids[:-1], ids[1:])
        memory.query_levels(queries, 3)
        memory.links.neighbours(3)
        memory.consolidate()
        memory.stats()
        memory.query(queries, 4)

    return make, read


@_reader("meaning recipe")
def meaning_recipe() -> Pair:
    from helix_plugin_topomemory.meaning.recipe import load_meaning_recipe

    text = 'name = "m"\nseed = 1\n[data]\nsource = "stdlib"\nvalidation = 0.1\n'
    text += "[links]\nmin_count = 3.0\n[replay]\npool = 10\n"
    return (lambda folder: (folder / "m.toml").write_text(text) and None), lambda folder, _: load_meaning_recipe(
        folder / "m.toml"
    )


# Datasets.


def _dataset(fmt: str, generator: str, options: dict[str, Any]) -> None:
    @_reader(f"dataset of {generator}, {fmt}", sign_shards)
    def dataset() -> Pair:
        from helix_plugin_synthetic.storage import Plan, open_dataset, write_dataset

        def make(folder: Path) -> None:
            write_dataset(Plan.of(generator, options, seed=1, n=6, shard_size=4, format=fmt), folder)

        def read(folder: Path, _: Any) -> None:
            dataset = open_dataset(folder)
            for sample in dataset:
                for name, field in dataset.schema.items():
                    assert field.problem(sample[name]) is None

        return make, read


for _fmt in ("parquet", "arrow", "safetensors"):
    _dataset(_fmt, "pcfg", {"seq_len": 8})  # a field of varying length
    _dataset(_fmt, "templates", {})  # text
_dataset("parquet", "watts-strogatz", {"nodes": 8})
_dataset("arrow", "trend-seasonality", {"length": 24, "missing": 0.1})  # NaN


@_reader("dataset under way")
def dataset_under_way() -> Pair:
    from helix_plugin_synthetic.storage import Plan, write_dataset

    def make(folder: Path) -> Any:
        plan = Plan.of("markov", {"seq_len": 4}, seed=1, n=4, shard_size=2, format="safetensors")
        manifest = write_dataset(plan, folder)
        (folder / "manifest.json").unlink()
        (folder / "plan.json").write_text(json.dumps(plan.as_dict()))
        (folder / "finished.jsonl").write_text("".join(json.dumps(r) + "\n" for r in manifest["shards"]))
        return plan

    return make, lambda folder, plan: write_dataset(plan, folder)


# Foreign checkpoints.

CONFIGS: dict[str, dict[str, Any]] = {
    "mamba": {"model_type": "mamba", "vocab_size": 9, "hidden_size": 8, "state_size": 3, "num_hidden_layers": 1},
    "mamba2": {
        "model_type": "mamba2",
        "vocab_size": 9,
        "hidden_size": 8,
        "state_size": 4,
        "num_hidden_layers": 1,
        "num_heads": 2,
        "head_dim": 8,
        "n_groups": 1,
        "time_step_limit": [0.0, 1e30],
        "tie_word_embeddings": True,
    },
    "rwkv": {"model_type": "rwkv", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1},
    "qwen3_next": {
        "model_type": "qwen3_next",
        "vocab_size": 9,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "linear_key_head_dim": 2,
        "linear_value_head_dim": 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 4,
        "shared_expert_intermediate_size": 4,
        "max_position_embeddings": 64,
        "layer_types": ["linear_attention", "full_attention"],
        "mlp_only_layers": [1],
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "router_aux_loss_coef": 0.01,
    },
    "state-spaces": {"d_model": 8, "n_layer": 1, "vocab_size": 9, "ssm_cfg": {"layer": "Mamba1", "d_state": 3}},
}


def weights_of(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Tensors of a foreign model of this config."""
    from helix_plugin_huggingface.reading import family_of
    from helix_plugin_lm.models import LanguageModel

    family = family_of(config)
    names = family.names(LanguageModel(family.read(config)))
    return {n.name: np.full(n.shape, 0.5, np.float32) for n in names.values()}


def _foreign(name: str, save: Callable[[Path, dict[str, np.ndarray]], None], kind: str) -> None:
    @_reader(f"{kind} of {name}")
    def foreign() -> Pair:
        from helix_plugin_huggingface.reading import import_checkpoint

        def make(folder: Path) -> None:
            (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
            save(folder, weights_of(CONFIGS[name]))

        def read(folder: Path, _: Any) -> None:
            out = folder.with_name(f"{folder.name}-imported")
            shutil.rmtree(out, ignore_errors=True)
            import_checkpoint(folder, out)

        return make, read


def _one_file(folder: Path, weights: dict[str, np.ndarray]) -> None:
    from helix_plugin_lm.storage.tensor_file import write_tensors

    write_tensors(folder / "model.safetensors", weights)


def _sharded(folder: Path, weights: dict[str, np.ndarray]) -> None:
    from helix_plugin_lm.storage.tensor_file import write_tensors

    places = {name: f"m-{i % 2}.safetensors" for i, name in enumerate(weights)}
    for file in set(places.values()):
        write_tensors(folder / file, {n: w for n, w in weights.items() if places[n] == file})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _pickled(folder: Path, weights: dict[str, np.ndarray]) -> None:
    import torch

    torch.save({name: torch.from_numpy(w) for name, w in weights.items()}, folder / "pytorch_model.bin")


for _name in CONFIGS:
    _foreign(_name, _one_file, "checkpoint")
_foreign("mamba", _sharded, "shards")
_foreign("mamba", _pickled, "torch file")


@_reader("export", sign_listed)
def export() -> Pair:
    from helix_plugin_huggingface.reading import import_checkpoint
    from helix_plugin_huggingface.writing import export_run

    def make(folder: Path) -> None:
        aside = folder.with_name(f"{folder.name}-foreign")
        aside.mkdir()
        (aside / "config.json").write_text(json.dumps({**CONFIGS["mamba"], "dtype": "float32"}))
        _one_file(aside, weights_of(CONFIGS["mamba"]))
        folder.rmdir()
        import_checkpoint(aside, folder)

    def read(folder: Path, _: Any) -> None:
        out = folder.with_name(f"{folder.name}-exported")
        shutil.rmtree(out, ignore_errors=True)
        export_run(folder, out)

    return make, read


# Results.


@_reader("quality results")
def quality_results() -> Pair:
    from helix_plugin_bench.quality.store import read

    rows = [{"row": "mqar/mamba", "seed": 0, "accuracy": 0.5}, {"row": "mqar/hyena", "seed": 1, "accuracy": 1.0}]
    return (lambda folder: (folder / "q.json").write_text(json.dumps({"rows": rows})) and None), lambda folder, _: read(
        folder / "q.json"
    )
