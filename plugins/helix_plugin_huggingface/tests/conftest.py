"""The command line as users call it, and a saved model to spoil."""

import json

import pytest
from hf_models import random_model

from helix_core.cli.main import main


@pytest.fixture
def helix(capsys):
    """Run the command line; returns exit code, output, errors."""

    def run(*arguments):
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def saved(tmp_path):
    """A small Mamba as transformers saves it."""
    random_model("mamba").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def edit_config(saved):
    """Change keys of the saved model's config; None removes one."""

    def edit(**changes):
        config = json.loads((saved / "config.json").read_text())
        config = {k: v for k, v in (config | changes).items() if v is not None}
        (saved / "config.json").write_text(json.dumps(config))

    return edit
