"""The command kit on what makes and uses runs: train, eval, generate."""

import shutil

import pytest

from helix_core.cli.main import main
from helix_testing import BaseCommandTests

RECIPE = """\
name = "tiny"
model = { d_model = 8, n_layers = 1, mixer = { name = "mamba", d_state = 2 } }
data = { source = "data", validation = 0.3 }
training = { steps = 2, batch_size = 2, seq_len = 16 }
optimizer = { name = "adamw", lr = 3e-3 }
backend = { name = "cpu" }
sample = { max_bytes = 3 }
"""


def write_recipe(folder):
    (folder / "data").mkdir()
    for i in range(4):
        (folder / "data" / f"{i}.txt").write_text(f"line {i}: the quick brown fox jumps over the lazy dog\n" * 4)
    (folder / "recipe.toml").write_text(RECIPE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a recipe, its data and `run`."""
    folder = tmp_path_factory.mktemp("trained")
    write_recipe(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "recipe.toml"]) == 0
    (run,) = (folder / "runs").iterdir()
    run.rename(folder / "run")
    return folder


class WithRun(BaseCommandTests):
    """A command that reads a run."""

    @pytest.fixture(autouse=True)
    def _trained(self, trained):
        self.trained = trained

    def prepare(self, folder):
        shutil.copytree(self.trained, folder, dirs_exist_ok=True)


class TestTrain(BaseCommandTests):
    command = "train"
    arguments = ("recipe.toml",)
    refused = (
        [],
        ["absent.toml"],
        ["--resume", "absent"],
        ["recipe.toml", "--resume", "absent"],
        ["recipe.toml", "--set", "training.stepz=3"],
        ["recipe.toml", "--set", "data.source=absent"],
    )

    def prepare(self, folder):
        write_recipe(folder)


class TestEval(WithRun):
    command = "eval"
    arguments = ("run", "--data", "data/0.txt")
    refused = (["absent", "--data", "data"], ["run", "--data", "absent"], ["run"], ["run", "--memory", "topological"])


class TestGenerate(WithRun):
    command = "generate"
    arguments = ("run", "--prompt", "line", "--max-tokens", "3")
    refused = (["absent", "--prompt", "x"], ["run", "--prompt", "x", "--temperature", "-1"], ["run", "--backend", "no"])
