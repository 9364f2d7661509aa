"""``dynserve``: the group of verbs, and the one place where errors become exit codes.

Exit codes: 0 done, 1 a run-time error, 2 the words of the command were wrong.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from dynserve.errors import DynserveError, PluginError

from .check import check
from .run import run

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dynserve", message="dynserve %(version)s")
def cli() -> None:
    """Serve any .proto from Python, with no generated code."""


cli.add_command(check)
cli.add_command(run)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit; ``argv`` is by default the process's own."""
    sys.exit(invoke(argv))


def invoke(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        code = cli.main(argv, prog_name="dynserve", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except DynserveError as error:
        if isinstance(error, PluginError) and error.__cause__ is not None:
            _print_plugin_traceback(error.__cause__)
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130  # 128 + SIGINT, as shells have it
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return int(code or 0)


def _print_plugin_traceback(error: BaseException) -> None:
    """The plugin's own exception with its own frames: those of dynserve and importlib left out."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith(("<frozen", os.path.dirname(os.path.dirname(__file__))))
    ]
    lines = ["Traceback (most recent call last):\n"] if own else []
    lines += [*traceback.format_list(own), *traceback.format_exception_only(error)]
    click.echo("".join(lines), err=True, nl=False)
