"""``dynserve describe``: what a .proto says of a symbol, as .proto text."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from .completion import complete_symbol
from .options import connection_options, target_argument
from .target import Target
from .terminal import harmless

if TYPE_CHECKING:
    from dynserve.schema import Schema

__all__ = ["describe"]

_THEME = "ansi_dark"  # the terminal's own colours


@click.command()
@target_argument
@click.argument("symbols", metavar="[SYMBOL]...", nargs=-1, shell_complete=complete_symbol)
@click.option(
    "--json-template", is_flag=True,
    help="Print a JSON request to fill in instead, for a method or a message.",
)  # fmt: skip
@connection_options
def describe(target: Target, symbols: tuple[str, ...], json_template: bool) -> int:
    """Show symbols as .proto text.

    A SYMBOL is the full name of a service, method, message, field, enum or extension; a method may
    also be named as pkg.Service/Method. Without a SYMBOL every service is shown. Comments are
    shown, too, where the server or the source has them.

    \b
    Examples:
      dynserve describe localhost:50051 routeguide.RouteGuide
      dynserve describe localhost:50051 routeguide.RouteGuide/GetFeature --json-template
      dynserve describe protos/ routeguide.Feature
    """
    names = tuple(symbol.removeprefix("/").replace("/", ".") for symbol in symbols)
    with target.tell() as told:
        code = 0
        if names:
            told.load(names)
        else:
            names, code = told.load_services()
        _print_all(told.schema, names, json_template)
    return code


def _print_all(schema: Schema, names: tuple[str, ...], json_template: bool) -> None:
    from dynserve.schema.proto_text import symbol_text

    for position, name in enumerate(names):
        if position:
            click.echo()
        if len(names) > 1 and not json_template:
            click.echo(f"// {name}, in {schema.index.file_of(name)}\n")
        if json_template:
            click.echo(json.dumps(_template(schema, name), indent=2, ensure_ascii=False))
        else:
            _print_proto(symbol_text(schema, name))


def _template(schema: Schema, name: str) -> object:
    from .example import template_of

    service, _, method = name.rpartition(".")
    if name in schema.index.services:
        such = "".join(f", such as {name}/{each}" for each in list(schema.method_kinds(name))[:1])
        raise click.UsageError(f"--json-template: {name} is a service; name a method of it{such}.")
    if service in schema.index.services:
        message = schema.method(f"{service}/{method}").request
    else:
        message = schema.message(name)
    return template_of(message.DESCRIPTOR)


def _print_proto(text: str) -> None:
    """In colours on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    text = harmless(text.rstrip("\n"))
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        click.echo(text)
        return
    from rich.console import Console
    from rich.syntax import Syntax

    coloured = Syntax(text, "protobuf", theme=_THEME, background_color="default").highlight(text)
    coloured.rstrip()
    Console().print(coloured, soft_wrap=True)  # lines stay whole, to be copied
