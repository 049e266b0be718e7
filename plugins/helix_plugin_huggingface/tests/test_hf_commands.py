"""The command kit on `helix import` and `helix export`."""

import shutil

import pytest
from hf_models import random_model

from helix_core.cli.main import main
from helix_testing import BaseCommandTests


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with a checkpoint, `saved`, and the run made of it, `run`."""
    folder = tmp_path_factory.mktemp("kept")
    random_model("mamba").save_pretrained(folder / "saved")
    assert main(["import", str(folder / "saved"), "--out", str(folder / "run")]) == 0
    return folder


class Kept(BaseCommandTests):
    @pytest.fixture(autouse=True)
    def _kept(self, kept):
        self.kept = kept

    def prepare(self, folder):
        shutil.copytree(self.kept, folder, dirs_exist_ok=True)


class TestImport(Kept):
    command = "import"
    arguments = ("saved", "--out=made")
    refused = (["absent"], ["saved", "--out=run"], ["."])


class TestExport(Kept):
    command = "export"
    arguments = ("run", "--out=made")
    refused = (["absent", "--out=made"], ["run", "--out=saved"], ["run"], ["run", "--out=made", "--format=gguf"])
