"""``dynserve list``: the services of a server, or the methods of one of them."""

from __future__ import annotations

import click

from .completion import complete_service
from .target import Target, connection_options, target_argument

__all__ = ["list_services"]


@click.command("list")
@target_argument
@click.argument("service", required=False, shell_complete=complete_service)
@connection_options
def list_services(target: Target, service: str | None) -> None:
    """List the services of a server, or the methods of a service.

    ADDR is HOST:PORT or unix:PATH: the server is asked through its reflection, or --proto says what
    it serves. SOURCE is a .proto file, a folder or a descriptor set, and no server is asked.

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
        click.echo(line)
