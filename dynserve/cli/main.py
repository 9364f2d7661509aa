"""``dynserve``: the group of verbs, and the one place where errors become exit codes.

Exit codes: 0 done, 1 a run-time error, 2 the words of the command were wrong, 64 + the status code
where a server answered with another than OK.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence

import click

from dynserve.errors import CompileError, DynserveError, PluginError
from dynserve.status import StatusError

from .terminal import harmless, is_unicode

__all__ = ["cli", "invoke", "main"]

_STATUS_CODES = 64
# Options of grpcurl whose name is the same here, but for a dash.
_OF_GRPCURL = {
    "-cacert",
    "-cert",
    "-emit-defaults",
    "-format",
    "-key",
    "-max-time",
    "-proto",
    "-reflect-header",
}
_COMPLETING = "_DYNSERVE_COMPLETE"
_ADDRESS = r"[^/]+:\d+|unix:.+"

# Where the frames between the command and a plugin's first line are.
_IMPORTERS = (
    "<frozen importlib",
    os.path.dirname(importlib.__file__) + os.sep,
    os.path.dirname(os.path.dirname(__file__)) + os.sep,
)


_VERBS = {  # the module of each, and its command there
    "call": ".call:call",
    "check": ".check:check",
    "completion": ".completion:completion",
    "describe": ".describe:describe",
    "envoy": ".envoy:envoy",
    "export": ".export:export",
    "list": ".list:list_services",
    "run": ".run:run",
}


class _Group(click.Group):
    """Imports the verb that is run, and no other: who calls a server does not load one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the verbs."""
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A verb by its name."""
        if cmd_name not in _VERBS:
            return None
        module, _, attribute = _VERBS[cmd_name].partition(":")
        found: click.Command = getattr(importlib.import_module(module, __package__), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; for a target in place of a verb, the verb that it is meant for."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            target = args[0]
            if re.fullmatch(_ADDRESS, target):
                verb = "list"
            elif target.endswith(".py") or os.path.exists(target):
                verb = "check" if target.endswith(".proto") else "run"
            else:
                raise
            problem = f"No such command {target!r}. Did you mean: dynserve {verb} {target}?"
            raise click.UsageError(problem, ctx) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["--help", "-h"]})
@click.version_option(package_name="dynserve", message="dynserve %(version)s")
def cli() -> None:
    """Serve any .proto from Python, and call any server, with no generated code."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit; ``argv`` is by default the process's own."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not is_unicode(stream):
            stream.reconfigure(errors="backslashreplace")  # a comment in a .proto may have any sign
    sys.exit(invoke(argv))


def invoke(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    if _COMPLETING in os.environ:
        importlib.import_module(".completion", __package__)  # what it does for bash, click asks
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        _refuse_single_dash(words)
        code = cli.main(words, prog_name="dynserve", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except DynserveError as error:
        _print_error(error)
        return error.exit_code
    except StatusError as error:
        _print_status(error)
        return _STATUS_CODES + error.code().value[0]
    except (click.Abort, KeyboardInterrupt):
        return 130  # 128 + SIGINT, as shells have it
    except SystemExit as error:  # by click: names were completed, or nobody reads our output
        return error.code if isinstance(error.code, int) else 1
    return int(code or 0)


def _refuse_single_dash(words: Sequence[str]) -> None:
    """Options as grpcurl has them would be read as short ones: -plaintext as -p laintext."""
    for word in words:
        if word == "-plaintext":
            problem = "No such option '-plaintext': connections are plain, unless --tls is given."
            raise click.UsageError(problem)
        if word in _OF_GRPCURL:
            raise click.UsageError(f"No such option {word!r}: options have two dashes, -{word}.")


def _print_error(error: DynserveError) -> None:
    if isinstance(error, CompileError):
        click.echo(harmless(str(error)), err=True)  # in the compiler's own form, for editors
        return
    if isinstance(error, PluginError) and error.__cause__ is not None:
        click.echo(_own_traceback(error.__cause__), err=True, nl=False)
    click.echo(f"Error: {harmless(str(error))}", err=True)


def _print_status(error: StatusError) -> None:
    from google.protobuf import json_format, text_format

    click.echo(f"Error: {harmless(str(error))}", err=True)
    for detail in error.status_details:
        try:
            shown = json_format.MessageToJson(detail, indent=None, ensure_ascii=False)
        except Exception:  # of a type that nobody here knows
            shown = text_format.MessageToString(detail, as_one_line=True)
        click.echo(f"  {detail.DESCRIPTOR.full_name}: {harmless(shown)}", err=True)


def _own_traceback(error: BaseException) -> str:
    """An exception of a plugin with the plugin's frames: those of who imported it left out."""
    shown = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = shown
    while part is not None:
        own = [frame for frame in part.stack if not frame.filename.startswith(_IMPORTERS)]
        part.stack = traceback.StackSummary.from_list(own)
        part = part.__cause__ or part.__context__
    return "".join(shown.format())
