"""``dynserve run``: load plugins, say what is served, serve."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dynserve import plugins
from dynserve.app import App, Defaults, say_waiting
from dynserve.errors import CompileError, TargetError
from dynserve.server import DEFAULT_ADDRESS
from dynserve.settings import Settings
from dynserve.workers.link import Link
from dynserve.workers.start import supervise

from . import banner
from .progress import waiting
from .setting_options import GroupedCommand, setting_options

if TYPE_CHECKING:
    from dynserve.settings import ServerOptions

__all__ = ["run"]

_EMPTY = "has no source and no handler; write App('my.proto'), or give --proto"
_LEVELS = ("debug", "info", "warning", "error", "critical")


@click.command(cls=GroupedCommand)
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@click.option(
    "-p", "--proto", multiple=True, metavar="SOURCE",
    help="A schema source for plugins that name none: a .proto file, a folder, a descriptor set,"
    " package:NAME/PATH. With no TARGET it is served as it is. Repeatable.",
)  # fmt: skip
@click.option(
    "-I", "--include", multiple=True, metavar="DIR", type=click.Path(path_type=Path),
    help="A root that imports are searched in, before any other and in the order given; for a file"
    " below one, no other is inferred. Repeatable.",
)  # fmt: skip
@click.option(
    "--listen", multiple=True, metavar="HOST:PORT", default=(DEFAULT_ADDRESS,), show_default=True,
    help="An address to listen on: HOST:PORT, [IPV6]:PORT, unix:PATH; port 0 lets the system"
    " choose. Repeatable.",
)  # fmt: skip
@click.option(
    "--log-level", type=click.Choice(_LEVELS, case_sensitive=False), default="info",
    show_default=True, help="What is logged to standard error.",
)  # fmt: skip
@setting_options
def run(
    targets: tuple[str, ...],
    proto: tuple[str, ...],
    include: tuple[Path, ...],
    listen: tuple[str, ...],
    log_level: str,
    settings: ServerOptions,
) -> None:
    """Serve plugins until Ctrl-C or SIGTERM.

    A TARGET is a .py file, a folder with a plugin.py, package.module:attribute, or the name of an
    installed plugin. Several are served side by side, each with a schema of its own.

    \b
    Examples:
      dynserve run examples/route_guide
      dynserve run plugin.py mypackage.service:app --listen 0.0.0.0:8080
      dynserve run --proto third_party/ -I third_party

    What is not among the first options may also be said by a variable of the environment,
    DYNSERVE_GRACE for --grace; a flag goes before it.
    """
    if not targets and not proto:
        raise click.UsageError("name a TARGET to serve, or a schema with --proto.")
    link = Link.of_environment()  # first: what is started from here on is no worker
    supervise(Settings(settings), listen, link, log_level)
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        app = _load(targets, proto, include)
        supervise(app.settings_with(settings), listen, link, log_level)
        with waiting("Compiling"):
            schemas = app.schemas()
    except CompileError as error:
        click.echo(str(error), err=True)
        raise click.ClickException("nothing is served: a source does not compile") from error
    tells = link is None or link.is_first
    if tells:
        for warning in (warning for schema in schemas for warning in schema.warnings):
            click.echo(str(warning), err=True)
    server = app.server(*listen, link=link, **settings)

    def ready() -> None:
        if tells:
            shown, cert = server.settings.reflection, server.settings.tls_cert
            banner.show(server.routes, server.addresses, shown, server.metrics_address, cert)

    server.run_forever(ready, lambda: say_waiting(server))


def _load(targets: tuple[str, ...], proto: tuple[str, ...], include: tuple[Path, ...]) -> App:
    """All targets, mounted in one app."""
    roots = tuple(path.absolute() for path in include)
    root = App()
    for target in targets:
        app = plugins.load(target, Defaults(proto, roots))
        if app.is_empty():
            raise TargetError(target, f"its app {_EMPTY}")
        root.mount(app)
    taken = any(app.takes_default_sources for app in root.tree()[1:])
    if proto and not targets:
        root.mount(App(*proto, include=roots))
    elif proto and not taken:
        click.echo("Warning: --proto has no effect, every plugin names its own sources", err=True)
    return root
