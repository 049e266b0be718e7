"""Runs that learn a generator's task: masked loss, accuracy, resumption, and recipes that make no sense."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import Field

from helix_core.cli.main import cli
from helix_core.errors import ConfigError, UsageError
from helix_core.kinds.component import ComponentConfig
from helix_core.kinds.generator import FieldSpec, Generator, GeneratorConfig, TokenGenerator
from helix_core.plugin_system import Registry, create, use_registry
from helix_core.plugin_system.settings import Settings
from helix_plugin_training import Trainer, evaluate_task, load_data, resume, train
from helix_plugin_training.data import HELD_OUT, TaskBatches, load_task
from helix_plugin_training.recipes import dump_recipe, load_recipe, parse_recipe
from helix_testing.dists import on_path, write_dist
from helix_testing.layers import usable_backends

RECIPE = """
name = "t"
[model]
vocab_size = 8
d_model = 16
n_layers = 1
mixer = { name = "mamba", d_state = 4 }
[data]
generator = { name = "task-test/recall", length = 12 }
validation_samples = 40
[training]
steps = 6
batch_size = 4
checkpoint_every = 2
[optimizer]
name = "adamw"
lr = 1e-2
[backend]
name = "cpu"
"""


class RecallConfig(GeneratorConfig):
    length: int = Field(12, gt=2)
    tokens: int = Field(8, gt=1)


class Recall(TokenGenerator[RecallConfig]):
    """The token two back is due, at a number of places that changes from sample to sample."""

    seq_len = property(lambda self: self.config.length)
    vocab_size = property(lambda self: self.config.tokens)

    def draw(self, rng, world):
        inputs = rng.integers(self.vocab_size, size=self.seq_len)
        mask = np.arange(self.seq_len) >= rng.integers(2, self.seq_len)
        return {"inputs": inputs, "targets": np.where(mask, np.roll(inputs, 2), 0), "mask": mask}


class Noise(Generator[GeneratorConfig]):
    def schema(self):
        return {"x": FieldSpec("float64")}

    def draw(self, rng, world):
        return {"x": np.float64(rng.normal())}


@pytest.fixture(autouse=True)
def installed(tmp_path):
    """The two generators above, as an installed plugin."""
    source = f"""
        from helix_core.plugin_system.descriptors import GeneratorDescriptor
        from helix_core.plugin_system.hookspecs import hookimpl

        @hookimpl
        def helix_generators():
            return [
                GeneratorDescriptor(name="recall", target="{__name__}:Recall", config="{__name__}:RecallConfig",
                                    summary="", provides=("tokens",)),
                GeneratorDescriptor(name="noise", target="{__name__}:Noise",
                                    config="helix_core.kinds.generator:GeneratorConfig", summary=""),
            ]
    """
    site = tmp_path / "site"
    write_dist(
        site,
        "helix-plugin-task-test",
        entry_points={"helix.plugins": {"task-test": "task_test_plugin"}},
        modules={"task_test_plugin.py": source},
    )
    with on_path(site), use_registry(Registry(Settings())):
        yield


def recipe(*overrides):
    return parse_recipe(RECIPE, "r.toml", overrides)


def trainer(*overrides):
    made = recipe(*overrides)
    return Trainer(made, load_data(made))


def test_every_scored_token_counts_the_same_whatever_its_micro_batch():
    """Four rows at once and in four micro-batches of one: the same loss and gradient."""
    whole, parts = trainer(), trainer("training.batch_size=1", "training.accumulation=4")
    rows = whole.batches(3)
    assert len(set(rows.mask.sum(1))) > 1
    parts.batches = lambda step, part: type(rows)(
        *(None if a is None else a[part : part + 1] for a in (rows.tokens, rows.targets, rows.reset, rows.mask))
    )
    value, grads = whole.gradient(3)
    part_value, part_grads = parts.gradient(3)
    assert float(part_value) == pytest.approx(float(value), rel=1e-6)
    for name, grad in grads.items():
        assert float((grad - part_grads[name]).abs().max()) <= 1e-6 * float(grad.abs().max() + 1e-3)


def test_the_loss_is_the_mean_over_scored_places_only():
    t = trainer()
    batch = t.batches(0)
    value, _ = t.gradient(0)
    with t.backend.inference():
        logits, _ = t.model.apply(t.F_infer, t.params, t.backend.asarray(batch.tokens))
        nats = t.backend.to_numpy(t.F_infer.cross_entropy(logits, t.backend.asarray(batch.targets)))
    assert float(value) == pytest.approx(nats[batch.mask].mean(), rel=1e-5)


def test_evaluation_counts_what_is_right():
    t = trainer()
    found = evaluate_task(t.model, t.backend, t.F_infer, t.params, t.data)
    tokens = right = solved = 0
    nats = 0.0
    for i in range(40):
        sample = t.data.generator.sample(0, HELD_OUT + i)
        with t.backend.inference():
            logits, _ = t.model.apply(t.F_infer, t.params, t.backend.asarray(sample["inputs"][None]))
        logits = t.backend.to_numpy(logits)[0].astype(np.float64)
        hits = (logits.argmax(-1) == sample["targets"])[sample["mask"]]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nats -= np.take_along_axis(log_p, sample["targets"][:, None], -1)[:, 0][sample["mask"]].sum()
        tokens, right, solved = tokens + len(hits), right + hits.sum(), solved + hits.all()
    assert (found.tokens, found.right, found.samples, found.solved) == (tokens, right, 40, solved)
    assert found.bits_per_token == pytest.approx(nats / np.log(2) / tokens, rel=1e-4)


def test_a_run_learns_and_says_so(tmp_path):
    run = train(
        recipe("training.steps=250", "training.batch_size=16", "training.eval_every=100"), runs=tmp_path / "runs"
    )
    summary = json.loads(run.summary_file.read_text())
    assert summary["val_accuracy"] > 0.9
    assert summary["val_samples"] == 40
    assert summary["train_tokens"] == 250 * 16 * 12
    lines = list(run.metrics())
    assert [line["step"] for line in lines if "val_accuracy" in line] == [100, 200, 250]
    assert lines[-2]["bits_per_token"] < lines[0]["bits_per_token"]
    assert (run.path / summary["sample"]).read_text().count("due ") == 4
    assert run.plot_file.stat().st_size > 1000
    told = CliRunner().invoke(cli, ["eval", str(run.path), "--json"], catch_exceptions=False)
    assert json.loads(told.stdout)["accuracy"] == summary["val_accuracy"]
    with pytest.raises(UsageError, match="are no text"):
        CliRunner().invoke(cli, ["generate", str(run.path)], catch_exceptions=False)
    longer = [
        "eval",
        str(run.path),
        "--json",
        "--set",
        "data.generator.length=40",
        "--set",
        "data.validation_samples=9",
    ]
    assert json.loads(CliRunner().invoke(cli, longer, catch_exceptions=False).stdout)["samples"] == 9
    with pytest.raises(UsageError, match=r"data\.\* only"):
        CliRunner().invoke(cli, ["eval", str(run.path), "--set", "model.d_model=3"], catch_exceptions=False)
    with pytest.raises(UsageError, match="different tokens"):
        CliRunner().invoke(cli, ["eval", str(run.path), "--set", "data.generator.tokens=9"], catch_exceptions=False)


def test_a_resumed_run_goes_on_bit_by_bit(tmp_path):
    whole = train(recipe("training.steps=8"), runs=tmp_path / "a")
    half = train(recipe("training.steps=8"), runs=tmp_path / "b")
    resumed = resume(half, checkpoint=half.checkpoints / "step-00000006")
    losses = [[line["loss"] for line in run.metrics() if "loss" in line] for run in (whole, resumed)]
    assert losses[0] == losses[1]
    assert load_recipe(resumed.recipe_file).data.generator.options == {"length": 12}


def test_batches_are_a_function_of_seed_and_step():
    task = load_task(ComponentConfig(name="task-test/recall"), seed=1, train=None, validation=3)
    first, again = (TaskBatches(task, batch_size=5, seed=2)(7, 1) for _ in range(2))
    assert np.array_equal(first.tokens, again.tokens)
    for other in (TaskBatches(task, batch_size=5, seed=3)(7, 1), TaskBatches(task, batch_size=5, seed=2)(7, 2)):
        assert not np.array_equal(first.tokens, other.tokens)


@pytest.mark.parametrize("backend", usable_backends())
def test_every_backend_gets_the_same_bytes(backend):
    task = load_task(ComponentConfig(name="task-test/recall"), seed=1, train=None, validation=3)
    there = create("backend", backend)
    batch = TaskBatches(task, batch_size=5, seed=2)(7)
    for array in (batch.tokens, batch.targets, batch.mask):
        found = there.to_numpy(there.asarray(array))
        assert found.dtype.kind == array.dtype.kind  # a backend may have no integers of 64 bits
        assert found.astype(array.dtype).tobytes() == array.tobytes()


def test_a_training_set_of_given_size():
    task = load_task(ComponentConfig(name="task-test/recall"), seed=1, train=3, validation=3)
    batches = TaskBatches(task, batch_size=50, seed=0)
    assert len(np.unique(np.concatenate([batches(s).tokens for s in range(4)]), axis=0)) == 3


def test_held_out_samples_are_others_and_all_of_them():
    task = load_task(ComponentConfig(name="task-test/recall"), seed=1, train=None, validation=37)
    rows = np.concatenate([batch.tokens for batch in task.held_out(16)])
    assert len(np.unique(rows, axis=0)) == 37
    assert np.array_equal(rows[20], task.generator.sample(1, HELD_OUT + 20)["inputs"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=x", "data.source means nothing for data of a generator"),
        ("training.seq_len=9", "options fix the length"),
        ("data.validation=0.1", "data.validation_samples says how many"),
        ("sample.prompt=x", "sample means nothing"),
        ("data.validation_samples=0", "greater than 0"),
    ],
)
def test_recipes_that_make_no_sense(override, message):
    with pytest.raises(ConfigError, match=message):
        recipe(override)


def test_generator_keys_without_a_generator():
    text = RECIPE.replace('generator = { name = "task-test/recall", length = 12 }', "")
    with pytest.raises(ConfigError, match=r"data\.validation_samples means nothing for data of files"):
        parse_recipe(text, "r.toml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.vocab_size=7", "set model.vocab_size = 8"),
        ("data.generator.lenght=3", "did you mean 'length'"),
        ("data.generator.name=noise", "no tokens that a model can be trained on"),
        ("data.generator.length=2", "greater than 2"),
    ],
)
def test_tasks_that_cannot_be_learned(override, message):
    with pytest.raises(ConfigError, match=message):
        trainer(override)


def test_a_recipe_is_written_back_whole():
    for overrides in ((), ("data.generator=recall", "data.samples=5", "data.seed=4")):
        made = recipe(*overrides)
        assert parse_recipe(dump_recipe(made), "again").model_dump() == made.model_dump()


def test_another_task_cannot_continue_a_run(tmp_path):
    run = train(recipe(), runs=tmp_path)
    with pytest.raises(UsageError, match="keeps its recipe"):
        resume(run, recipe("data.seed=9", "training.steps=9"))
