"""``dynserve list``: the services of a server, or the methods of one of them."""

from __future__ import annotations

import click

from .completion import complete_service
from .options import connection_options, target_argument
from .target import Target
from .terminal import harmless

__all__ = ["list_services"]


@click.command("list")
@target_argument
@click.argument("service", required=False, shell_complete=complete_service)
@connection_options
def list_services(target: Target, service: str | None) -> None:
    """List services, or the methods of one.

    ADDR is HOST:PORT or unix:PATH. The server there is asked by reflection, unless --proto or
    --descriptor-set says what it serves. SOURCE is a .proto file, a folder, a descriptor set or
    package:NAME/PATH; then no server is asked.

    \b
    Examples:
      dynserve list localhost:50051
      dynserve list localhost:50051 routeguide.RouteGuide
      dynserve list protos/
    """
    with target.tell() as told:
        if service is None:
            lines = told.services()
        else:
            lines = tuple(f"{service}/{name}" for name in told.methods(service))
    for line in lines:
        click.echo(harmless(line))
