"""``dynserve envoy``: write a configuration with which Envoy balances calls over servers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dynserve import envoy as config
from dynserve import plugins
from dynserve.envoy.proxy import ACCESS_LOGS, BALANCES
from dynserve.schema import Schema

from .files import write
from .progress import waiting

if TYPE_CHECKING:
    from dynserve.envoy import Transcoding

__all__ = ["envoy"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Group = TypeVar("_Group")

_SUFFIXES = (".yaml", ".yml", ".json")
_ENDINGS = ".yaml, .yml or .json: Envoy goes by it"
_SECONDS = click.FloatRange(min=0)
_POSITIVE_SECONDS = click.FloatRange(min=0.001)
_COUNT = click.IntRange(min=0)
_AT_LEAST_ONE = click.IntRange(min=1)
_PERCENT = click.FloatRange(min=0, max=100)


_SECTIONS: Mapping[str, tuple[type, ...]] = {
    "Clients": (config.Front,),
    "Servers": (config.Upstream,),
    "Health": (config.Health, config.Ejection),
    "Retries and limits": (config.Retries, config.Breakers),
    "Hooks": (config.Hooks,),
    "Browsers and JSON": (config.Web, config.Transcoding),
}


def _setting(group: type, name: str, metavar: str | None, text: str, **more: Any) -> Any:
    """An option for a field of a group, by its name, with its default."""
    default = getattr(group, name, None)  # a dataclass without slots has them as attributes
    flag = f"--{name.replace('_', '-')}"
    if default is False:
        return click.option(flag, name, is_flag=True, help=text)
    is_many = isinstance(default, tuple)
    return click.option(
        flag, name, metavar=metavar, default=default, multiple=is_many,
        show_default=default not in (None, "", ()), help=text, **more,
    )  # fmt: skip


def _all_of(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    """Several options as one decorator, in the order given."""

    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_front_options = _all_of(
    _setting(config.Front, "listen", "HOST:PORT", "Where Envoy listens; [IPV6]:PORT, unix:PATH."),
    _setting(config.Front, "tls_cert", "FILE", "Envoy's certificate, for TLS; paths are those of"
             " the machine that it runs on."),
    _setting(config.Front, "tls_key", "FILE", "The private key of that certificate."),
    _setting(config.Front, "tls_client_ca", "FILE", "Require clients to show a certificate of one"
             " of these authorities."),
    _setting(config.Front, "admin", "HOST:PORT", "Where Envoy tells of itself, and takes orders:"
             " not where others reach it. Empty for nowhere."),
    _setting(config.Front, "access_log", None, "A line a call on standard output.",
             type=click.Choice(ACCESS_LOGS)),
    _setting(config.Front, "trusted_hops", "N", "Proxies in front of Envoy whose x-forwarded-for is"
             " believed.", type=_COUNT),
    _setting(config.Front, "max_timeout", "SECONDS", "After that long a call is cut off; servers"
             " have limits that say so. 0: never.", type=_SECONDS),
    _setting(config.Front, "stream_idle_timeout", "SECONDS", "How long a stream may carry nothing;"
             " 0: no limit.", type=_SECONDS),
    _setting(config.Front, "client_keepalive", "SECONDS", "How often a client is asked whether it"
             " is still there; 0: never.", type=_SECONDS),
    _setting(config.Front, "client_streams", "N", "Concurrent streams of a client's connection.",
             type=_AT_LEAST_ONE),
    _setting(config.Front, "client_connections", "N", "Connections of clients; more are refused.",
             type=_AT_LEAST_ONE),
    _setting(config.Front, "client_connection_age", "SECONDS", "After that long a client is asked"
             " to connect anew; 0: never.", type=_SECONDS),
    _setting(config.Front, "drain_timeout", "SECONDS", "How long it may begin streams after that.",
             type=_SECONDS),
)  # fmt: skip

_upstream_options = _all_of(
    _setting(config.Upstream, "upstream", "HOST:PORT", "A server; a DNS name stands for all its"
             " addresses, as that of a headless Service does. Repeatable."),
    _setting(config.Upstream, "balance", None, "Which server gets a call.",
             type=click.Choice(tuple(BALANCES))),
    _setting(config.Upstream, "connect_timeout", "SECONDS", "How long connecting may take.",
             type=_POSITIVE_SECONDS),
    _setting(config.Upstream, "dns_refresh", "SECONDS", "How often names are looked up.",
             type=_POSITIVE_SECONDS),
    _setting(config.Upstream, "upstream_ca", "FILE", "Connect by TLS; the authorities of the"
             " servers' certificates."),
    _setting(config.Upstream, "upstream_cert", "FILE", "The certificate that Envoy shows them."),
    _setting(config.Upstream, "upstream_key", "FILE", "The private key of that certificate."),
    _setting(config.Upstream, "upstream_name", "NAME", "The name in the servers' certificates; by"
             " default that of --upstream, if there is one."),
    _setting(config.Upstream, "upstream_keepalive", "SECONDS", "How often a server is asked by an"
             " HTTP/2 ping whether it is still there; 0: never. Servers close connections that ask"
             " too often.", type=_SECONDS),
)  # fmt: skip

_health_options = _all_of(
    _setting(config.Health, "health_interval", "SECONDS", "Between two health checks of a server.",
             type=_POSITIVE_SECONDS),
    _setting(config.Health, "health_timeout", "SECONDS", "How long an answer may take.",
             type=_POSITIVE_SECONDS),
    _setting(config.Health, "health_failures", "N", "Checks without an answer that make a server"
             " unhealthy; NOT_SERVING does at once.", type=_AT_LEAST_ONE),
    _setting(config.Health, "health_service", "NAME", "The service that is asked for; by default"
             " the server as a whole."),
    _setting(config.Health, "panic_threshold", "PERCENT", "With fewer healthy servers than this,"
             " unhealthy ones get calls, too; 0: never.", type=_PERCENT),
    _setting(config.Ejection, "eject_after", "N", "Failures of connecting in a row for which a"
             " server is left out; 0: never.", type=_COUNT),
    _setting(config.Ejection, "eject_time", "SECONDS", "How long; a health check that goes well"
             " ends it.", type=_POSITIVE_SECONDS),
    _setting(config.Ejection, "eject_percent", "PERCENT", "How many servers may be left out so.",
             type=click.IntRange(0, 100)),
)  # fmt: skip

_retry_options = _all_of(
    _setting(config.Retries, "retry_on", "CONDITIONS", "When a call is tried again, on another"
             " server, in Envoy's words. With reset a handler may run twice."),
    _setting(config.Retries, "retries", "N", "How often at most; 0: never.", type=_COUNT),
    _setting(config.Retries, "per_try_timeout", "SECONDS", "How long a server may take to begin an"
             " answer; 0: no limit.", type=_SECONDS),
    _setting(config.Retries, "retry_budget", "PERCENT", "How many of the calls under way may be"
             " retries.", type=_PERCENT),
    _setting(config.Retries, "retry_concurrency", "N", "How many always may.", type=_COUNT),
    _setting(config.Retries, "retry_buffer", "BYTES", "The longest request that is kept to be tried"
             " again.", type=_COUNT),
    _setting(config.Breakers, "max_connections", "N", "Connections to the servers.",
             type=_AT_LEAST_ONE),
    _setting(config.Breakers, "max_pending", "N", "Calls that wait for one.", type=_AT_LEAST_ONE),
    _setting(config.Breakers, "max_requests", "N", "Calls under way; more are refused at once.",
             type=_AT_LEAST_ONE),
)  # fmt: skip

_hook_options = _all_of(
    _setting(config.Hooks, "ext_authz", "HOST:PORT", "Ask this service, by"
             " envoy.service.auth.v3.Authorization, whether a call may go on."),
    _setting(config.Hooks, "ext_authz_timeout", "SECONDS", "How long its answer may take.",
             type=_POSITIVE_SECONDS),
    _setting(config.Hooks, "ext_authz_fail_open", None, "Let calls pass that it does not answer"
             " for; else they are UNAVAILABLE."),
    _setting(config.Hooks, "rate_limit_service", "HOST:PORT", "Ask this service, by"
             " envoy.service.ratelimit.v3.RateLimitService, whether there are too many calls."),
    _setting(config.Hooks, "rate_limit_domain", "NAME", "What its limits go by."),
    _setting(config.Hooks, "rate_limit_by", "WHAT", "What it is told: address, path, header:NAME;"
             " each is a descriptor of its own. Repeatable."),
    _setting(config.Hooks, "rate_limit_timeout", "SECONDS", "How long its answer may take.",
             type=_POSITIVE_SECONDS),
    _setting(config.Hooks, "rate_limit_fail_closed", None, "Refuse calls that it does not answer"
             " for; else they pass."),
    _setting(config.Hooks, "local_rate_limit", "N", "Calls a second that Envoy lets pass; 0: no"
             " limit.", type=_COUNT),
    _setting(config.Hooks, "local_rate_limit_burst", "N", "Calls at once; by default as many as in"
             " a second.", type=_AT_LEAST_ONE),
    _setting(config.Hooks, "local_rate_limit_per_connection", None, "Count for each connection."),
)  # fmt: skip

_web_options = _all_of(
    click.option("--grpc-web/--no-grpc-web", default=True, show_default=True,
                 help="Translate gRPC-Web, which browsers speak."),
    _setting(config.Web, "cors_origin", "ORIGIN", "Let pages of this origin call, such as"
             " https://example.org; * for all. Repeatable."),
    _setting(config.Web, "cors_header", "NAME", "A header that they may send beside those of"
             " gRPC-Web and authorization. Repeatable."),
    _setting(config.Transcoding, "auto_mapping", None, "JSON for methods without google.api.http,"
             " too: POST /pkg.Service/Method."),
    _setting(config.Transcoding, "json_proto_names", None, "Print names of fields as the .proto has"
             " them, not in lowerCamelCase."),
    _setting(config.Transcoding, "json_defaults", None, "Print fields that are not set, too."),
)  # fmt: skip


class _Command(click.Command):
    """One whose help shows the options by what they are about."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them: first those that are of no group."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        sections |= {title: [] for title in _SECTIONS}
        section_of = {
            field.name: title
            for title, groups in _SECTIONS.items()
            for group in groups
            for field in dataclasses.fields(group)
        }
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and isinstance(option, click.Option):
                sections[section_of.get(option.name or "", "Options")].append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


@click.command(cls=_Command)
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option(
    "-I", "--include", multiple=True, metavar="DIR", type=click.Path(path_type=Path),
    help="A root that imports are searched in, before any other and in the order given.",
)  # fmt: skip
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False),
    help="Write this file: .yaml, .yml or .json, for Envoy goes by that. By default, as for -, YAML"
    " on standard output.",
)  # fmt: skip
@_front_options
@_upstream_options
@_health_options
@_retry_options
@_hook_options
@_web_options
def envoy(
    sources: tuple[str, ...], include: tuple[Path, ...], output: str | None, **options: Any
) -> None:
    """Write a configuration with which Envoy balances calls over servers.

    A SOURCE is a .proto file, a folder, a descriptor set, package:NAME/PATH, or a plugin: a .py
    file or a folder with a plugin.py. Its services can then be called by plain HTTP and JSON, too,
    as their google.api.http options say. Everything that is gRPC goes through in any case.

    Envoy runs it by: envoy -c envoy.yaml

    \b
    Examples:
      dynserve envoy protos/route_guide.proto --upstream 10.0.0.1:50051 > envoy.yaml
      dynserve envoy --listen 0.0.0.0:8080 --upstream shop.default.svc:50051 > envoy.yaml
    """
    path = None if output in (None, "-") else Path(str(output))
    if path is not None and path.suffix not in _SUFFIXES:
        raise config.ProxyError("-o", f"got {output!r}, expected a name that ends in {_ENDINGS}")
    proxy = config.Proxy(
        front=_of(config.Front, options),
        upstream=_of(config.Upstream, options),
        health=_of(config.Health, options),
        retries=_of(config.Retries, options),
        breakers=_of(config.Breakers, options),
        ejection=_of(config.Ejection, options),
        hooks=_of(config.Hooks, options),
        web=_of(config.Web, options),
        transcoding=_transcoding(sources, include, options),
    )
    made = config.bootstrap(proxy)
    _warn(proxy)
    if path is None:
        click.echo(config.to_yaml(made, *_head(sources)), nl=False)
    elif path.suffix == ".json":
        write(path, config.to_json(made).encode())
    else:
        write(path, config.to_yaml(made, *_head(sources)).encode())


def _of(group: type[_Group], options: Mapping[str, Any]) -> _Group:
    """A group, its fields by the options of their names."""
    names = [field.name for field in dataclasses.fields(group)]  # type: ignore[arg-type]
    return group(**{name: options[name] for name in names})


def _head(sources: Iterable[str]) -> list[str]:
    named = " ".join(source if source.isprintable() else "TEXT" for source in sources)
    return [f"Written by `dynserve envoy{' ' if named else ''}{named}`; `--help` has its options."]


def _transcoding(
    sources: tuple[str, ...], include: tuple[Path, ...], options: Mapping[str, Any]
) -> Transcoding | None:
    chosen = {name: options[name] for name in ("auto_mapping", "json_proto_names", "json_defaults")}
    if not sources:
        for name in (name for name, is_set in chosen.items() if is_set):
            flag = f"--{name.replace('_', '-')}"
            raise config.ProxyError(flag, "is for JSON; name a SOURCE that has the services")
        return None
    with waiting("Compiling"):
        found = config.transcoding(_schemas(sources, include), **chosen)
    if not found.services:
        raise config.ProxyError(" ".join(sources), "has no service; name a source that has one")
    return found


def _schemas(sources: tuple[str, ...], include: tuple[Path, ...]) -> list[Schema]:
    """Those of plugins, each its own, and one of all other sources."""
    others = [source for source in sources if not _is_plugin(source)]
    schemas = [
        schema
        for source in sources
        if _is_plugin(source)
        for schema in plugins.load(source).schemas()
    ]
    if others:
        schemas.append(Schema.load(*others, include=include))
    return list(dict.fromkeys(schemas))


def _is_plugin(source: str) -> bool:
    return source.endswith(".py") or os.path.exists(os.path.join(source, "plugin.py"))


def _warn(proxy: config.Proxy) -> None:
    """What is written as asked, and may not be meant."""
    admin = proxy.front.admin_at
    if admin is not None and not admin.is_on_loopback:
        problem = f"--admin {proxy.front.admin}: who reaches it can stop Envoy; 127.0.0.1 is safe"
        click.echo(f"Warning: {problem}", err=True)
