"""What the verbs of the client are pointed at: an address, or sources that name the same.

The options that say how to connect are the same for each of them, and are declared here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from dynserve.errors import TargetError

if TYPE_CHECKING:
    from dynserve.client.sync import Client
    from dynserve.schema import Schema

__all__ = ["Target", "Told", "connection_options", "refuse_sources", "target_argument"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_SET_ENDINGS = (".binpb", ".pb", ".protoset", ".desc", ".gz")
_GLOB = "*?["


class Target(NamedTuple):
    """Where to look, and what was said of how."""

    name: str
    proto: tuple[str, ...] = ()
    include: tuple[Path, ...] = ()
    descriptor_set: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    reflect_header: tuple[str, ...] = ()
    tls: bool = False
    cacert: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    token: str | None = None
    max_time: float | None = None
    max_message_bytes: int | None = None
    keepalive: float | None = None
    deadline: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], max_time: float | None = None) -> Target:
        """What the options of a command say; those that are not about the target are passed over.

        ``max_time`` is in seconds, for where they set no limit.
        """
        given = {name: options[name] for name in cls._fields if options.get(name) is not None}
        limit = given.setdefault("max_time", max_time)
        deadline = None if limit is None else time.monotonic() + limit
        return cls(options["target"], **given, deadline=deadline)

    @property
    def is_source(self) -> bool:
        """Whether it names sources rather than a server."""
        return (
            os.path.exists(self.name)
            or self.name.startswith("package:")
            or self.name.endswith((".proto", *_SET_ENDINGS))
            or (":" not in self.name and any(sign in self.name for sign in _GLOB))
        )

    @contextlib.contextmanager
    def tell(self) -> Iterator[Told]:
        """The schema of the sources that it names, or of the server as far as it is asked."""
        if self.is_source:
            from dynserve.schema import Schema

            sources = (self.name, *self.proto, *self.descriptor_set)
            yield Told(Schema.load(*sources, include=self.include), None)
        else:
            with self.connect() as client:
                yield Told(client.schema, client)

    def remaining(self) -> float | None:
        """The seconds that ``--max-time`` leaves."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def connect(self) -> Client:
        """A client of the server that it names."""
        from dynserve.client.security import TLS
        from dynserve.client.sync import Client

        limit: dict[str, Any] = {}
        if self.deadline is not None:
            limit["reflection_timeout"] = self.remaining()
        proof = (self.cacert, self.cert, self.key, self.server_name)
        tls = TLS(*proof) if any(proof) else self.tls or self.token is not None
        return Client(
            self.name,
            *self.proto,
            *self.descriptor_set,
            include=self.include,
            tls=tls,
            token=self.token,
            metadata=_pairs(self.header),
            reflection_metadata=_pairs(self.reflect_header),
            **limit,
            max_message_bytes=self.max_message_bytes,
            keepalive=self.keepalive,
        )


class Told:
    """A schema, of which a server is asked what is needed."""

    def __init__(self, schema: Schema, client: Client | None) -> None:
        self.schema = schema
        self._client = client

    def services(self) -> tuple[str, ...]:
        """The names of the services."""
        return self.schema.declared_services if self._client is None else self._client.services()

    def methods(self, service: str) -> tuple[str, ...]:
        """The names of a service's methods, in the order of the file."""
        if self._client is not None:
            self._client.service(service)
        return tuple(self.schema.method_kinds(service))

    def load(self, symbol: str) -> None:
        """Have the schema hold a symbol, if there is one of that name."""
        if self._client is not None:
            self._client.load(symbol)


def _pairs(headers: tuple[str, ...]) -> list[tuple[str, str | bytes]]:
    """``name: value`` as metadata; the value of a name that ends in -bin is given in base64."""
    import base64
    import binascii

    pairs: list[tuple[str, str | bytes]] = []
    for header in headers:
        name, colon, value = header.partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or not name:
            raise click.UsageError(f"got header {header!r}, expected 'name: value'.")
        if name.endswith("-bin"):
            try:
                padded = value + "=" * (-len(value) % 4)
                pairs.append((name, base64.b64decode(padded, validate=True)))
            except binascii.Error:
                problem = f"header {name!r} is binary by its name: give its value in base64."
                raise click.UsageError(problem) from None
        else:
            pairs.append((name, value))
    return pairs


def target_argument(function: _Function) -> _Function:
    """The first argument of every verb of the client."""
    return click.argument("target", metavar="ADDR|SOURCE")(function)


_OPTIONS = (
    click.option(
        "-p", "--proto", multiple=True, metavar="SOURCE",
        help="What declares the services, instead of the server's reflection: a .proto file, a"
        " folder, package:NAME/PATH. Repeatable.",
    ),
    click.option(
        "-I", "--include", multiple=True, metavar="DIR", type=click.Path(path_type=Path),
        help="A root that imports of --proto are searched in. Repeatable.",
    ),
    click.option(
        "--descriptor-set", multiple=True, metavar="FILE",
        help="The same from a descriptor set. Repeatable.",
    ),
    click.option(
        "-H", "--header", multiple=True, metavar="'NAME: VALUE'",
        help="Metadata for every call and for reflection; of a name that ends in -bin in base64."
        " Repeatable.",
    ),
    click.option(
        "--reflect-header", multiple=True, metavar="'NAME: VALUE'",
        help="Metadata for reflection only. Repeatable.",
    ),
    click.option("--tls", is_flag=True, help="Encrypt; trust what the system trusts."),
    click.option(
        "--cacert", metavar="FILE",
        help="Encrypt; trust the authorities in this PEM file instead.",
    ),
    click.option(
        "--cert", metavar="FILE", help="Encrypt; prove who calls by this certificate, with --key."
    ),
    click.option("--key", metavar="FILE", help="The private key of --cert."),
    click.option(
        "--server-name", metavar="NAME",
        help="Encrypt; the name that the server's certificate must have, if not the host's.",
    ),
    click.option(
        "--token", metavar="TOKEN", envvar="DYNSERVE_TOKEN", show_envvar=True,
        help="Encrypt; send 'authorization: Bearer TOKEN' with every call.",
    ),
    click.option(
        "--max-time", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
        help="The longest that all of it may take.",
    ),
    click.option(
        "--max-message-bytes", type=click.IntRange(min=1), metavar="BYTES",
        help="The longest message to take.  [default: 4194304]",
    ),
    click.option(
        "--keepalive", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
        help="Probe the connection after so long without traffic.",
    ),
)  # fmt: skip


def connection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare the options of :class:`Target`; the function gets one as ``target``."""

    @functools.wraps(function)
    def with_target(target: str, **options: Any) -> Any:
        others = {name: options[name] for name in options if name not in Target._fields}
        return function(target=Target.of({**options, "target": target}), **others)

    for option in reversed(_OPTIONS):
        with_target = option(with_target)
    return with_target


def refuse_sources(target: Target, verb: str) -> None:
    """Refuse sources where only a server will do.

    Raises:
        TargetError: the target names sources.
    """
    if target.is_source:
        problem = f"names sources; `dynserve {verb}` needs the HOST:PORT of a server"
        raise TargetError(target.name, problem)
