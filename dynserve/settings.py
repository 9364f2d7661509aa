"""Settings of a server: one table for keyword arguments, flags and environment variables.

Each is an argument of ``App``, ``app.run`` and ``app.server``, a flag of ``dynserve run`` by the
same name with dashes, and a variable ``DYNSERVE_`` with the name in capitals. A flag, or an
argument of ``app.run``, goes before the variable, and that before an argument of ``App``, which is
the app's own default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dynserve.errors import SettingError, did_you_mean
from dynserve.unix_mode import parse_mode

if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import TypedDict

    class ServerOptions(TypedDict, total=False):
        """The settings as keyword arguments; ``SETTINGS`` says what each does."""

        strict: bool
        reflection: bool
        health: bool
        validate: bool
        engine: str
        workers: int | None
        threads: int | None
        stream_threads: int
        tls_cert: str | os.PathLike[str] | None
        tls_key: str | os.PathLike[str] | None
        tls_client_ca: str | os.PathLike[str] | None
        tls_require_client_cert: bool | None
        unix_mode: int | str | None
        xds: bool
        auth_tokens: str | os.PathLike[str] | None
        auth_jwks: str | os.PathLike[str] | None
        auth_issuer: str | None
        auth_audience: str | None
        auth_api_keys: str | os.PathLike[str] | None
        auth_client_cert: Iterable[str] | None
        auth_public: Iterable[str] | None
        auth_health: Literal["open", "required"]
        auth_reflection: Literal["open", "required"]
        max_receive_size: int | str
        max_send_size: int | str | None
        max_metadata_size: int | str
        maximum_concurrent_rpcs: int | None
        max_concurrent_streams: int | None
        max_connection_age: float | None
        max_connection_age_grace: float | None
        max_connection_idle: float | None
        keepalive_time: float | None
        keepalive_timeout: float | None
        min_ping_interval: float | None
        default_timeout: float | None
        max_timeout: float | None
        max_queue_wait: float | None
        grace: float
        drain_wait: float
        access_log: Literal["off", "text", "json"]
        access_log_sample: float
        traces: bool
        metrics: str | None
        admin: bool


__all__ = ["SETTINGS", "Setting", "Settings", "checked_settings"]

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20}
_UNITS |= {"g": 1 << 30, "gib": 1 << 30, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_SIZE = re.compile(r"([0-9]+)\s*([a-z]*)", re.IGNORECASE)
_LARGEST = (1 << 31) - 1  # what the core takes as an int
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class Type(NamedTuple):
    """What the values of a setting are: how they read in a flag, and how they are checked."""

    metavar: str
    expected: str
    checked: Callable[[Any], Any]  # a value, or its text; ValueError where it is none


class Setting(NamedTuple):
    """One setting."""

    name: str
    type: Type
    default: Any
    help: str  # what it does; of one that is on, what its flag, which switches it off, does
    may_be_off: bool = False  # None, or "off", in place of a default that is a limit

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"DYNSERVE_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """The flag of ``dynserve run``; what is on by default has one that switches it off."""
        prefix = "--no-" if self.default is True else "--"
        return prefix + self.name.replace("_", "-")

    def checked(self, value: Any, given_as: str) -> Any:
        """The value in the setting's own type.

        Raises:
            SettingError: it cannot be that.
        """
        if (value is None and (self.default is None or self.may_be_off)) or (
            self.may_be_off and value == "off"
        ):
            return None
        try:
            return self.type.checked(value)
        except (TypeError, ValueError) as error:
            raise SettingError(given_as, value, self.type.expected) from error


# ---- types


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, str) else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(value)


def _count(value: Any) -> int:
    count = int(value)
    if isinstance(value, bool) or not (1 <= count <= _LARGEST and value in (count, str(count))):
        raise ValueError(value)
    return count


def _seconds(value: Any) -> float:
    seconds = float(value)
    if isinstance(value, bool) or not 0 < seconds <= _LARGEST / 1000:
        raise ValueError(value)
    return seconds


def _wait(value: Any) -> float:
    return 0.0 if not isinstance(value, bool) and float(value) == 0 else _seconds(value)


def _share(value: Any) -> float:
    share = float(value)
    if isinstance(value, bool) or not 0 <= share <= 1:
        raise ValueError(value)
    return share


def _size(value: Any) -> int:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(value)
        value = int(match[1]) * unit
    return _count(value)


def _words(value: Any) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else tuple(value)
    if not all(isinstance(word, str) for word in words):
        raise ValueError(value)
    words = tuple(word.strip() for word in words)
    if not (words and all(words)):  # a list that was not filled in is no list
        raise ValueError(value)
    return words


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(value)
    return value


def _path(value: Any) -> str:
    return _text(os.fspath(value))


def _one_of(*choices: str) -> Type:
    def checked(value: Any) -> str:
        if value not in choices:
            raise ValueError(value)
        return str(value)

    return Type("|".join(choices), f"one of {', '.join(map(repr, choices))}", checked)


_SWITCH = Type("", "a boolean: true or false", _boolean)
_COUNT = Type("N", "a whole number, at least 1", _count)
_SECONDS = Type("SECONDS", "a number of seconds above 0", _seconds)
_WAIT = Type("SECONDS", "a number of seconds, 0 or more", _wait)
_SHARE = Type("SHARE", "a share from 0 to 1", _share)
_BYTES = Type("SIZE", "a number of bytes, such as 4194304 or 4MiB", _size)
_MODE = Type("MODE", "an octal file mode such as 660", parse_mode)
_WORDS = Type("WORDS", "words separated by commas", _words)
_TEXT = Type("TEXT", "a text", _text)
_WHERE = Type("URL|FILE", "a URL or the path of a file", _path)
_FILE = Type("FILE", "the path of a file", _path)

# ---- the table

GROUPS: Mapping[str, tuple[Setting, ...]] = {
    "Serving": (
        Setting("strict", _SWITCH, False, "Refuse to start while a method has no handler."),
        Setting("reflection", _SWITCH, True, "Do not let clients discover the services."),
        Setting("health", _SWITCH, True, "Do not serve grpc.health.v1.Health."),
        Setting("validate", _SWITCH, False, "Check requests by the protovalidate rules of their"
                " .proto; needs dynserve[validate]."),
        Setting("engine", _one_of("auto", "queue", "aio"), "auto", "What carries the calls: queue"
                " is several times faster, aio uses public parts of grpcio only; auto takes the"
                " first where it works."),
        Setting("workers", _COUNT, None, "How many processes serve, on the same ports; a supervisor"
                " restarts those that die, and replaces them on SIGHUP."),
        Setting("threads", _COUNT, None, "How many unary sync handlers run at the same time; by"
                " default four times the cores and eight, at most 64."),
        Setting("stream_threads", _COUNT, 1000, "How many streaming sync handlers run at the same"
                " time."),
    ),
    "TLS and sockets": (
        Setting("tls_cert", _FILE, None, "The server's certificate chain, PEM. It is read again"
                " when it changes."),
        Setting("tls_key", _FILE, None, "Its private key, PEM."),
        Setting("tls_client_ca", _FILE, None, "Ask clients for a certificate that one of these"
                " signed, PEM."),
        Setting("tls_require_client_cert", _SWITCH, None, "Whether a client without a certificate"
                " is refused. It is where tls_client_ca is given: gRPC for Python cannot only"
                " ask."),
        Setting("unix_mode", _MODE, None, "The permissions of unix sockets, such as 660; by default"
                " what the umask gives."),
        Setting("xds", _SWITCH, False, "Take the configuration from an xDS control plane, by"
                " GRPC_XDS_BOOTSTRAP."),
    ),
    "Authentication": (
        Setting("auth_tokens", _FILE, None, "Bearer tokens that may call, one a line: NAME:TOKEN."),
        Setting("auth_jwks", _WHERE, None, "The keys of JSON web tokens that may call: a URL or a"
                " file; needs dynserve[auth]."),
        Setting("auth_issuer", _TEXT, None, "The issuer that such tokens must have."),
        Setting("auth_audience", _TEXT, None, "The audience that such tokens must have."),
        Setting("auth_api_keys", _FILE, None, "API keys that may call, one a line: NAME:KEY."),
        Setting("auth_client_cert", _WORDS, None, "Names of client certificates that may call, with"
                " * for any part that has no slash; '*' alone is any certificate of the CA."),
        Setting("auth_public", _WORDS, None, "Methods that anybody may call: pkg.Service/Method or"
                " pkg.Service/*."),
        Setting("auth_health", _one_of("open", "required"), "open", "Whether health checks have to"
                " be authenticated, where calls do."),
        Setting("auth_reflection", _one_of("open", "required"), "required", "The same for"
                " reflection."),
    ),
    "Limits": (
        Setting("max_receive_size", _BYTES, 4 << 20, "The largest request message."),
        Setting("max_send_size", _BYTES, None, "The largest response message; no limit by"
                " default."),
        Setting("max_metadata_size", _BYTES, 16 << 10, "The largest metadata of a request, as"
                " HTTP/2 counts it: names, values and 32 bytes for each."),
        Setting("maximum_concurrent_rpcs", _COUNT, None, "Calls past it are refused with"
                " RESOURCE_EXHAUSTED; health and reflection do not count."),
        Setting("max_concurrent_streams", _COUNT, 1000, "Calls that one connection may have open;"
                " off for no limit.", may_be_off=True),
        Setting("max_connection_age", _SECONDS, None, "After it a connection is told to go, so that"
                " load balancing sees new servers; no limit by default."),
        Setting("max_connection_age_grace", _SECONDS, None, "How long its calls may then go on; no"
                " limit by default."),
        Setting("max_connection_idle", _SECONDS, None, "A connection without calls is told to go"
                " after it; no limit by default."),
        Setting("keepalive_time", _SECONDS, None, "After such a silence the peer is asked whether"
                " it is there; by default two hours, as gRPC has it."),
        Setting("keepalive_timeout", _SECONDS, None, "How long it has to answer; by default 20 s."),
        Setting("min_ping_interval", _SECONDS, None, "A client that pings more often while"
                " nothing is sent to it is cut off; by default 300 s, as gRPC has it."),
        Setting("default_timeout", _SECONDS, None, "The deadline of calls that have none."),
        Setting("max_timeout", _SECONDS, None, "The longest deadline; a later one is shortened."),
        Setting("max_queue_wait", _SECONDS, 30.0, "A unary call that has waited so long for a"
                " thread is refused with RESOURCE_EXHAUSTED; off for no limit.", may_be_off=True),
    ),
    "Stopping": (
        Setting("grace", _WAIT, 10.0, "How long calls under way may go on when the server stops."),
        Setting("drain_wait", _WAIT, 0.0, "How long to serve on after SIGTERM, while health says"
                " NOT_SERVING, for load balancers to notice."),
    ),
    "Seeing": (
        Setting("access_log", _one_of("off", "text", "json"), "off", "Log each call."),
        Setting("access_log_sample", _SHARE, 1.0, "The share of calls that are logged; those that"
                " the server failed always are."),
        Setting("traces", _SWITCH, False, "OpenTelemetry traces and metrics; needs"
                " dynserve[otel]."),
        Setting("metrics", _TEXT, None, "HOST:PORT where Prometheus may scrape metrics; needs"
                " dynserve[prometheus]."),
        Setting("admin", _SWITCH, False, "Serve channelz and what runs right now; needs"
                " dynserve[admin]."),
    ),
}  # fmt: skip

_SECURITY = ("TLS and sockets", "Authentication")

SETTINGS: Mapping[str, Setting] = {
    setting.name: setting for group in GROUPS.values() for setting in group
}


_GUARDED = ("DYNSERVE_AUTH_", "DYNSERVE_TLS_")  # a misspelt one must not leave a server open
_VARIABLES = {setting.variable for setting in SETTINGS.values()}


class Settings:
    """The values of all settings, as attributes.

    Args:
        given: what was said for this server.
        defaults: what the app says.
        environ: the environment variables.

    Raises:
        SettingError: a value cannot be that of its setting.
        TypeError: there is no such setting.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __init__(
        self,
        given: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        said = checked_settings(given)
        values = checked_settings(defaults or {}) | _of_environment(environ, said) | said
        for setting in SETTINGS.values():
            setattr(self, setting.name, values.get(setting.name, setting.default))


def checked_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they were given, checked.

    Raises:
        SettingError: a value cannot be that of its setting.
        TypeError: there is no such setting.
    """
    for name in given:
        if name not in SETTINGS:
            raise TypeError(f"there is no setting {name!r}{did_you_mean(name, SETTINGS)}")
    return {name: SETTINGS[name].checked(value, name) for name, value in given.items()}


def _of_environment(environ: Mapping[str, str], given: Collection[str]) -> dict[str, Any]:
    """What environment variables say of what is not given otherwise.

    An empty one says nothing. But one for security is an error: a secret that was not filled in
    must not open the server.
    """
    for variable in environ:
        if variable.startswith(_GUARDED) and variable not in _VARIABLES:
            near = did_you_mean(variable, _VARIABLES)
            raise SettingError(variable, "…", f"no variable of that name{near}")  # maybe a secret
    said = {}
    for group, settings in GROUPS.items():
        for setting in settings:
            text = environ.get(setting.variable)
            if text is None or setting.name in given or (not text and group not in _SECURITY):
                continue
            if not text:
                raise SettingError(setting.variable, text, setting.type.expected)
            said[setting.name] = setting.checked(text, setting.variable)
    return said
