"""The options that say what a verb of the client is pointed at, and how to connect.

They are the same for each of them, and are declared here.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from .log import warnings_shown
from .target import Target

__all__ = ["Seconds", "connection_options", "target_argument"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_FILE = click.Path()  # which shells complete; it is opened by who reads it
_MOST = (1 << 31) - 1  # that gRPC can count: bytes, milliseconds
_LONGEST = _MOST // 1000  # seconds
_OF_SERVERS = (
    "header", "reflect_header", "tls", "cacert", "cert", "key", "server_name", "token", "max_time",
    "max_message_bytes", "keepalive",
)  # fmt: skip


class Seconds(click.FloatRange):
    """More than none, and no more than gRPC can count."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number.

        Raises:
            click.BadParameter: it is none, or out of range.
        """
        seconds: float = super().convert(value, param, ctx)
        if not seconds <= _LONGEST:  # nan is none of the two
            self.fail(f"{value} is not a number of seconds up to {_LONGEST}.", param, ctx)
        return seconds


def _complete_file(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Any]:
    return [CompletionItem(incomplete, type="file")]  # the shell knows them better


def target_argument(function: _Function) -> _Function:
    """The first argument of every verb of the client."""
    return click.argument("target", metavar="ADDR|SOURCE", shell_complete=_complete_file)(function)


_OPTIONS = (
    click.option(
        "-p", "--proto", multiple=True, metavar="SOURCE", type=_FILE,
        help="Take the services from this source, not from the server's reflection: a .proto file,"
        " a folder, package:NAME/PATH. Repeatable.",
    ),
    click.option(
        "-I", "--include", multiple=True, metavar="DIR", type=click.Path(path_type=Path),
        help="An import root for .proto files. Repeatable.",
    ),
    click.option(
        "--descriptor-set", multiple=True, metavar="FILE", type=_FILE,
        help="Take the services from this descriptor set. Repeatable.",
    ),
    click.option(
        "-H", "--header", multiple=True, metavar="'NAME: VALUE'",
        help="Send this metadata with the call and with reflection; the value of a name that ends"
        " in -bin is base64. Repeatable.",
    ),
    click.option(
        "--reflect-header", multiple=True, metavar="'NAME: VALUE'",
        help="Send this metadata with reflection only. Repeatable.",
    ),
    click.option("--tls", is_flag=True, help="Use TLS; trust the system's authorities."),
    click.option(
        "--cacert", metavar="FILE", type=_FILE,
        help="Use TLS; trust the authorities in this PEM file instead.",
    ),
    click.option(
        "--cert", metavar="FILE", type=_FILE,
        help="Use TLS; present this certificate, a PEM file, to the server. Needs --key.",
    ),
    click.option(
        "--key", metavar="FILE", type=_FILE, help="The private key of --cert, a PEM file."
    ),
    click.option(
        "--server-name", metavar="NAME",
        help="Use TLS; expect this name, not the host's, in the server's certificate.",
    ),
    click.option(
        "--token", metavar="TOKEN", envvar="DYNSERVE_TOKEN", show_envvar=True,
        help="Use TLS; send 'authorization: Bearer TOKEN' with every call.",
    ),
    click.option(
        "--max-time", type=Seconds(), metavar="SECONDS",
        help="The longest time for all of it: connecting, reflection and the call.",
    ),
    click.option(
        "--max-message-bytes", type=click.IntRange(min=1, max=_MOST), metavar="BYTES",
        help="The longest message to send or receive.  [default: 4194304 to receive]",
    ),
    click.option(
        "--keepalive", type=Seconds(), metavar="SECONDS",
        help="Probe the connection when it has been idle for this long.",
    ),
)  # fmt: skip


def connection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare the options of :class:`Target`; the function gets one as ``target``."""

    @functools.wraps(function)
    def with_target(target: str, **options: Any) -> Any:
        others = {name: options[name] for name in options if name not in Target._fields}
        named = Target.of({**options, "target": target})
        for warning in _without_effect(named, click.get_current_context()):
            click.echo(f"Warning: {warning}", err=True)
        with warnings_shown(), _errors_of_output():
            return function(target=named, **others)

    for option in reversed(_OPTIONS):
        with_target = option(with_target)
    return with_target


@contextlib.contextmanager
def _errors_of_output() -> Iterator[None]:
    """A full disk is no fault of this program; that nobody reads is for who called this."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _without_effect(target: Target, ctx: click.Context) -> Iterator[str]:
    """The options that were given and do nothing."""
    useless: tuple[str, ...]
    if target.is_source:
        useless, reason = _OF_SERVERS, "no server is asked"
    elif target.proto or target.descriptor_set:
        useless, reason = ("reflect_header",), "the sources take the place of reflection"
    else:
        useless, reason = ("include",), "it is for --proto"
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name in useless and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            yield f"{parameter.opts[-1]} has no effect, {reason}"
