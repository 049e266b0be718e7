"""The `helix` command: finds subcommands without importing them, and turns errors into messages.

Exit codes: 0 done; 1 the job failed; 2 the request was wrong; 130 stopped by Ctrl-C, as shells have it.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from typing import Any

import click

from helix_core.cli.commands import BUILT_IN, plugin_commands
from helix_core.cli.compiling import compile_notices
from helix_core.errors import HelixError, UsageError
from helix_core.streams import standard_streams, tell
from helix_core.terminal import escaping_terminals
from helix_core.version import __version__


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own or in plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*BUILT_IN, *sorted(plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from helix_core.plugin_system.refs import load_ref

        if cmd_name in BUILT_IN:
            built_in: click.Command = load_ref(f"helix_core.cli.{cmd_name}:command")
            return built_in
        commands = plugin_commands()
        if not any(cmd_name in (typed, c.name, c.full_name) for typed, c in commands.items()):
            return None
        from helix_core.plugin_system import create_target, select

        component = select("command", cmd_name).chosen
        command = create_target(component)
        if not isinstance(command, click.Command):
            raise HelixError(f"command {component.full_name!r} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant; an unknown one is an error that suggests the nearest."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            from helix_core.plugin_system.catalogue import distribution_of
            from helix_core.suggest import did_you_mean

            if distribution := distribution_of("command", name):
                raise UsageError(f"command {name!r} is not installed", hint=f"pip install {distribution}")
            text = f"no command {name!r}{did_you_mean(name, self.list_commands(ctx))}"
            raise UsageError(text, hint="`helix --help` lists them")
        return name if command else None, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(BUILT_IN.items())
        try:
            rows += [(typed, c.descriptor.summary) for typed, c in sorted(plugin_commands().items())]
        except HelixError as error:
            # Help must not need working settings; any command that does will say the same.
            tell(f"error: {error}")
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> None:
        # What a command returns is not an exit code; click hands both back the same way.
        super().invoke(ctx)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="helix")
def cli() -> None:
    """Sequence models beyond the transformer: train, generate and evaluate on whatever hardware is there."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with standard_streams(), escaping_terminals(), warnings.catch_warnings(), compile_notices():
        warnings.showwarning = _show_warning
        try:
            code = cli.main(args=arguments, prog_name="helix", standalone_mode=False)
            sys.stdout.flush()
            return code or 0
        except HelixError as error:
            return _fail(str(error), error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            tell(error.format_message())
            return error.exit_code
        except click.ClickException as error:
            context = getattr(error, "ctx", None)
            hint = f"\n  -> see `{context.command_path} --help`" if context else ""
            return _fail(error.format_message() + hint, error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            return _fail("stopped", 130)
        except BrokenPipeError:
            return 1  # the reader left (`helix plugins | head`)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                return _fail(f"cannot write {error.filename or 'standard output'}: {error.strerror}", 1)
            if os.environ.get("HELIX_DEBUG"):
                raise
            text = f"{type(error).__name__}: {error}"
            return _fail(f"{text}\n  -> run with HELIX_DEBUG=1 for the traceback", 1)


def _fail(text: str, code: int) -> int:
    tell(f"error: {text}")
    return code


def _show_warning(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
    tell(f"warning: {message}")


if __name__ == "__main__":
    sys.exit(main())
