"""``dynserve describe``: what a .proto says of a symbol, as .proto text."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from .completion import complete_symbol
from .target import Target, connection_options, target_argument

if TYPE_CHECKING:
    from dynserve.schema import Schema

__all__ = ["describe"]


@click.command()
@target_argument
@click.argument("symbols", metavar="[SYMBOL]...", nargs=-1, shell_complete=complete_symbol)
@click.option(
    "--json-template", is_flag=True,
    help="Print a request to fill in instead, in JSON: of a method, or of a message type.",
)  # fmt: skip
@connection_options
def describe(target: Target, symbols: tuple[str, ...], json_template: bool) -> None:
    """Describe services, methods, messages, enums, fields or extensions.

    A SYMBOL is a full name; of a method also pkg.Service/Method. Without any, every service is
    described.

    \b
    Examples:
      dynserve describe localhost:50051 routeguide.RouteGuide
      dynserve describe localhost:50051 routeguide.RouteGuide/GetFeature --json-template
      dynserve describe protos/ routeguide.Feature
    """
    names = tuple(symbol.removeprefix("/").replace("/", ".") for symbol in symbols)
    with target.tell() as told:
        names = names or told.services()
        for name in names:
            told.load(name)
        _print_all(told.schema, names, json_template)


def _print_all(schema: Schema, names: tuple[str, ...], json_template: bool) -> None:
    from dynserve.schema.proto_text import symbol_text

    for position, name in enumerate(names):
        if position:
            click.echo()
        if json_template:
            click.echo(json.dumps(_template(schema, name), indent=2, ensure_ascii=False))
        else:
            _print_proto(symbol_text(schema, name))


def _template(schema: Schema, name: str) -> object:
    from .example import template_of

    service, _, method = name.rpartition(".")
    if service in schema.index.services:
        message = schema.method(f"{service}/{method}").request
    else:
        message = schema.message(name)
    return template_of(message.DESCRIPTOR)


def _print_proto(text: str) -> None:
    """In colours on a terminal."""
    if not sys.stdout.isatty():
        click.echo(text.rstrip("\n"))
        return
    from rich.console import Console
    from rich.syntax import Syntax

    syntax = Syntax(text.rstrip("\n"), "protobuf", background_color="default", word_wrap=True)
    Console().print(syntax)
