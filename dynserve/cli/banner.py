"""What ``dynserve run`` says when it is ready: a table of what is served, and commands to paste.

On a terminal the table is drawn by rich. Elsewhere, in a log, plain lines say the same, and rich is
not even imported.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from dynserve.binding import BoundService, Routes
from dynserve.method import MethodInfo

__all__ = ["show"]

_BUILTIN = ("grpc.health.", "grpc.reflection.")
_ANY_HOST = ("0.0.0.0", "[::]", "")  # noqa: S104 - only compared with
_MAX_ROWS = 40
_MAX_FIELDS = 3


def show(routes: Routes, addresses: Sequence[str], reflection: bool) -> None:
    """Print the services, the addresses and commands that call the first method."""
    services = [s for s in routes.services.values() if not s.name.startswith(_BUILTIN)]
    rows = [row for service in services for row in _rows(service)]
    if sys.stdout.isatty():
        _print_table(rows[:_MAX_ROWS])
    else:
        for service, method, kind, handler in rows[:_MAX_ROWS]:
            click.echo(f"{service}/{method} ({kind}): {handler}")
    if len(rows) > _MAX_ROWS:
        click.echo(f"… and {len(rows) - _MAX_ROWS} more methods")
    holes = sum(len(service.holes) for service in services)
    if holes:
        click.echo(f"{holes} of {len(rows)} methods have no handler (--strict refuses to start)")
    for address in addresses:
        click.echo(f"Listening on {address}")
    click.echo()
    for line in commands(services, addresses[0], reflection):
        click.echo(f"  {line}")
    sys.stdout.flush()


def _rows(service: BoundService) -> Iterable[tuple[str, str, str, str]]:
    for method, kind in service.schema.method_kinds(service.name).items():
        handler = service.handlers.get(method)
        shown = "no handler" if handler is None else handler.partition(" (")[0]
        yield service.name, method, str(kind), shown


def _print_table(rows: Iterable[tuple[str, str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("service", "method", "kind", "handler", box=None, padding=(0, 2, 0, 0))
    last = ""
    for service, method, kind, handler in rows:
        style = "yellow" if handler == "no handler" else None
        table.add_row("" if service == last else service, method, kind, handler, style=style)
        last = service
    Console().print(table)


def commands(services: Sequence[BoundService], address: str, reflection: bool) -> list[str]:
    """Commands ready to paste: grpcurl on this address, the first method, its real field names."""
    target = _target(address)
    if not reflection:
        return [f"grpcurl -plaintext -proto FILE.proto {target} list"]
    lines = [f"grpcurl -plaintext {target} list"]
    method = next((m for s in services if (m := _first_method(s)) is not None), None)
    if method is not None:
        body = json.dumps(example_request(method.request.DESCRIPTOR))
        lines.append(f"grpcurl -plaintext {target} describe {method.service}")
        lines.append(f"grpcurl -plaintext -d {shlex.quote(body)} {target} {method}")
    return lines


def _target(address: str) -> str:
    """The address as a client on this machine dials it."""
    if address.startswith("unix:"):
        return f"-unix {shlex.quote(address.removeprefix('unix:').removeprefix('//'))}"
    host, _, port = address.rpartition(":")
    return f"localhost:{port}" if host in _ANY_HOST else address


def _first_method(service: BoundService) -> MethodInfo | None:
    return next((service.schema.service(service.name).methods[m] for m in service.handlers), None)


def example_request(descriptor: Any, depth: int = 2) -> dict[str, Any]:
    """A request with the first few fields of a message type, by their real names."""
    example: dict[str, Any] = {}
    for field in list(descriptor.fields)[:_MAX_FIELDS]:
        value: Any
        if field.message_type is not None:
            is_plain = not field.message_type.full_name.startswith("google.protobuf.")
            if depth == 0 or not is_plain or field.message_type.GetOptions().map_entry:
                continue
            value = example_request(field.message_type, depth - 1)
        elif field.enum_type is not None:
            value = field.enum_type.values[0].name
        else:
            value = {"str": "text", "bool": True, "bytes": "AA=="}.get(_python_type(field), 1)
        example[field.name] = [value] if field.is_repeated else value
    return example


def _python_type(field: Any) -> str:
    return {9: "str", 8: "bool", 12: "bytes"}.get(field.type, "number")
