"""`helix data`: make synthetic data and verify it."""

from __future__ import annotations

import click

from helix_plugin_synthetic.commands.generate import generate
from helix_plugin_synthetic.commands.presets import presets
from helix_plugin_synthetic.commands.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Generate synthetic data and verify it."""


command.add_command(generate)
command.add_command(verify)
command.add_command(presets)
