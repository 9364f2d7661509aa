"""What ``dynserve run`` says when it is ready: a table of what is served, and commands to paste.

On a terminal the table is drawn by rich. Elsewhere, in a log, plain lines say the same, and rich is
not even imported.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import click

from dynserve.method import Kind
from dynserve.routes import BoundService, LateService, Routes

from .example import example_of

__all__ = ["show"]

_BUILTIN = ("grpc.health.", "grpc.reflection.", "grpc.channelz.", "dynserve.admin.")
_ANY_HOST = ("0.0.0.0", "[::]", "")  # noqa: S104 - only compared with
_SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")  # which clients in Go do not know
_MAX_ROWS = 40
_FEW = 10  # more than that are shown too, rather than counted
_NO_HANDLER = "no handler"


class _Served(NamedTuple):
    """A service with its methods, which are read once: there may be thousands."""

    service: BoundService | LateService
    methods: Mapping[str, Kind]

    def rows(self) -> Iterable[tuple[str, str, str, str]]:
        for method, kind in self.methods.items():
            handler = self.service.handlers.get(method)
            shown = _NO_HANDLER if handler is None else handler.partition(" (")[0]
            yield self.service.name, method, str(kind), shown


def show(
    routes: Routes,
    addresses: Sequence[str],
    reflection: bool,
    metrics_address: str = "",
    tls_cert: str | None = None,
) -> None:
    """Print the services, the addresses and commands that call the first method.

    ``tls_cert`` is what clients may trust where connections are encrypted.
    """
    served = [
        _Served(service, service.schema.method_kinds(service.name))
        for service in routes.services.values()
        if not service.name.startswith(_BUILTIN)
    ]
    rows = [row for each in served for row in each.rows()]
    shown = rows if len(rows) <= _MAX_ROWS + _FEW else rows[:_MAX_ROWS]
    if not rows:
        click.echo("No service of the schema has a method.")
    elif sys.stdout.isatty():
        _print_table(shown)
    else:
        for service, method, kind, handler in shown:
            click.echo(f"{service}/{method} ({kind}): {handler}")
    if len(rows) > len(shown):
        click.echo(f"... and {len(rows) - len(shown)} more methods")
    holes = sum(handler == _NO_HANDLER for *_, handler in rows)
    if holes:
        click.echo(f"{holes} of {len(rows)} methods have no handler (--strict refuses to start)")
    for address in addresses:
        click.echo(f"Listening on {address}")
    if metrics_address:
        click.echo(f"Metrics on http://{metrics_address}/metrics")
    click.echo()
    for line in _commands(served, addresses[0], reflection, tls_cert):
        click.echo(f"  {line}")


def _print_table(rows: Iterable[tuple[str, str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("service", "method", "kind", "handler"):
        table.add_column(name, overflow="fold")
    last = ""
    for service, method, kind, handler in rows:
        style = "yellow" if handler == _NO_HANDLER else None
        table.add_row("" if service == last else service, method, kind, handler, style=style)
        last = service
    Console(markup=False, emoji=False).print(table)


def _commands(
    served: Sequence[_Served], address: str, reflection: bool, tls_cert: str | None
) -> list[str]:
    """Commands ready to paste: this address, the first method, its real field names."""
    if not reflection:
        return ["Reflection is off: clients need the .proto files, as in grpcurl -proto FILE"]
    target = _target(address)
    ours, theirs = "", "-plaintext "
    if tls_cert is not None:
        ours, theirs = f"--cacert {shlex.quote(tls_cert)} ", f"-cacert {shlex.quote(tls_cert)} "
    lines = [f"grpcurl {theirs}{target} list"]
    for service, methods in served:
        method = next((name for name in methods if name in service.handlers), None)
        if method is not None:
            request = service.schema.service(service.name).methods[method].request
            body = shlex.quote(json.dumps(example_of(request.DESCRIPTOR)))
            lines.insert(0, f"dynserve call {ours}{target} {service.name}/{method} -d {body}")
            lines.append(f"grpcurl {theirs}{target} describe {service.name}")
            lines.append(f"grpcurl {theirs}-d {body} {target} {service.name}/{method}")
            break
    return lines


def _target(address: str) -> str:
    """The address as grpcurl on this machine dials it."""
    if address.startswith(("unix:", "unix-abstract:")):  # its option -unix fails up to 1.9.3
        return shlex.quote(address)
    for scheme in _SCHEMES:
        address = address.removeprefix(scheme)
    host, _, port = address.rpartition(":")
    return f"localhost:{port}" if host in _ANY_HOST else address
