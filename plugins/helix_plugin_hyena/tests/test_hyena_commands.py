"""The command kit on `helix distill` and `helix infill`."""

import shutil

import pytest

from helix_core.cli.main import main
from helix_testing import BaseCommandTests

RECIPE = """\
name = "tiny"
model = { vocab_size = 257, d_model = 8, n_layers = 1, mixer = MIXER }
data = { generator = { name = "masked-spans", source = "text", seq_len = 16, max_span = 4 }, validation_samples = 4 }
training = { steps = 1, batch_size = 2 }
optimizer = { name = "adamw", lr = 1e-3 }
backend = { name = "cpu" }
"""
MIXERS = {
    "infill": '{ name = "hyena", bidirectional = true, l_max = 16, filter_order = 8 }',
    "distill": '{ name = "hyena", l_max = 16, filter_order = 8 }',
}


@pytest.fixture(scope="class")
def trained(request, tmp_path_factory):
    """A folder with the recipe's data and `run`."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text").write_text("the quick brown fox jumps over the lazy dog\n" * 9)
    (folder / "recipe.toml").write_text(RECIPE.replace("MIXER", MIXERS[request.cls.command]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "recipe.toml"]) == 0
    (run,) = (folder / "runs").iterdir()
    run.rename(folder / "run")
    return folder


class WithRun(BaseCommandTests):
    """A command that reads the run of a tiny recipe."""

    @pytest.fixture(autouse=True)
    def _trained(self, trained):
        self.trained = trained

    def prepare(self, folder):
        shutil.copytree(self.trained, folder, dirs_exist_ok=True)


class TestDistill(WithRun):
    command = "distill"
    arguments = ("run", "--modes=2", "--runs=made")
    refused = (["absent"], ["run", "--modes=0"], ["run", "--data=absent"])


class TestInfill(WithRun):
    command = "infill"
    arguments = ("run", "--text=the <|2|>ck", "--backend=cpu")
    refused = (["absent", "--text=<|1|>"], ["run", "--text=no blank"], ["run", "--text=<|1|>", "--temperature=-1"])
