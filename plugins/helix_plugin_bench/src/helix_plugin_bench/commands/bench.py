"""`helix bench`: benchmarks that need no more than a CPU and time."""

from __future__ import annotations

import click

from helix_plugin_bench.commands.quality import quality


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Benchmarks of what is installed."""


command.add_command(quality)
