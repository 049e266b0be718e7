"""The `helix` command: finds subcommands without importing them, and turns errors into messages and exit codes.

Exit codes: 0 done; 1 the job failed; 2 the request was wrong; 130 stopped by Ctrl-C, as shells have it.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import click

from helix_core.errors import HelixError, UsageError

# Summaries stand here so that `helix --help` imports no command.
BUILT_IN = {
    "plugins": "List the installed plugins and how each fared.",
    "doctor": "Check this machine, the plugins and the backends.",
    "explain": "Say which component or kernel would be used, and why.",
    "describe": "Show a component, its docstring and the schema of its options.",
    "new": "Write an installable plugin to start from.",
    "train": "Carry out a recipe, or go on with a run.",
    "generate": "Continue a prompt with a trained run.",
    "eval": "Bits per byte of a trained run on any files.",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own or in plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*BUILT_IN, *sorted(_plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from helix_core.plugin_system.refs import load_ref

        if cmd_name in BUILT_IN:
            command: click.Command = load_ref(f"helix_core.cli.{cmd_name}:command")
            return command
        component = _plugin_commands().get(cmd_name)
        if component is None:
            return None
        from helix_core.plugin_system import create_target

        target = create_target(component)
        if not isinstance(target, click.Command):
            raise HelixError(f"command {component.full_name!r} is not a click command")
        return target

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            from helix_core.suggest import did_you_mean

            name = args[0]
            raise UsageError(
                f"no command {name!r}{did_you_mean(name, self.list_commands(ctx))}", hint="`helix --help` lists them"
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(BUILT_IN.items())
        rows += [(name, c.descriptor.summary) for name, c in sorted(_plugin_commands().items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugin_commands() -> dict[str, Any]:
    from helix_core.plugin_system import components

    return {c.name: c for c in components("command") if c.name not in BUILT_IN}


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="helix-core")
def cli() -> None:
    """Sequence models beyond the transformer: train, generate and evaluate on whatever hardware is there."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    warnings.showwarning = _show_warning
    try:
        cli.main(args=arguments, prog_name="helix", standalone_mode=False)
    except HelixError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _fail("stopped", 130)
    except BrokenPipeError:
        # The reader left (`helix plugins | head`); nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("HELIX_DEBUG"):
            raise
        return _fail(f"{type(error).__name__}: {error}\n  -> run with HELIX_DEBUG=1 for the traceback", 1)
    return 0


def _fail(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
