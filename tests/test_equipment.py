"""What a server has by its settings beside its own parts: TLS, metrics, the access log, xDS."""

from __future__ import annotations

import re
import socket
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dynserve import AddressError, App, CredentialsError, DynserveError, SettingError
from dynserve.equipment import Equipment, check_xds
from dynserve.settings import Settings
from tests.authority import Authority
from tests.conftest import Serve
from tests.echo import Item, schema

WAIT = 20


def app_of() -> App:
    """An app that answers unary calls with their request."""
    app = App(schema=schema)
    app.add(lambda request: request, "echo.Echo/Unary")
    return app


def error_of(kind: type[Exception], **options: Any) -> str:
    """The text of what keeps a server from being made."""
    with pytest.raises(kind) as caught:
        app_of().server("127.0.0.1:0", **options)
    return str(caught.value)


# ---- credentials


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("tls_cert", "server.crt"),
        ("tls_key", "server.key"),
        ("tls_client_ca", "ca.crt"),
        ("tls_require_client_cert", False),
    ],
)
def test_credentials_and_settings_clash(setting: str, value: Any) -> None:
    """Which of the two is meant nobody can tell; a server in clear text would be the worst."""
    credentials = grpc.ssl_server_credentials([(b"key", b"certificate")])
    given: Any = {setting: value}
    assert error_of(SettingError, credentials=credentials, **given) == (
        f"got {setting}={value!r}, expected nothing, where credentials are given"
    )


def test_half_of_the_files_is_an_error(tmp_path: Path) -> None:
    """A certificate without its key must not become a server in clear text."""
    (tmp_path / "server.crt").write_text("x")
    assert error_of(CredentialsError, tls_cert=tmp_path / "server.crt") == (
        "tls_cert: got it without tls_key, expected both"
    )


def test_tls_by_settings(serve: Serve, tmp_path: Path, authorities: list[Authority]) -> None:
    """Files are all that it takes; several ports have credentials of their own."""
    key, certificate = authorities[0].issue("localhost")
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "crt").write_bytes(certificate)
    server = app_of().server(
        "127.0.0.1:0", "127.0.0.1:0", tls_cert=tmp_path / "crt", tls_key=tmp_path / "key"
    )
    credentials = grpc.ssl_channel_credentials(authorities[0].root)
    options = [("grpc.ssl_target_name_override", "localhost")]
    with server.in_thread():
        assert len(set(server.addresses)) == 2
        for address in server.addresses:
            with grpc.secure_channel(address, credentials, options) as channel:
                call: Any = channel.unary_unary("/echo.Echo/Unary")
                assert call(b"\x08\x01", timeout=WAIT) == b"\x08\x01"


# ---- extras


@pytest.mark.parametrize(
    ("settings", "module", "text"),
    [
        (
            {"traces": True},
            "opentelemetry",
            "traces need the package opentelemetry-api; write `pip install 'dynserve[otel]'`",
        ),
        (
            {"metrics": "127.0.0.1:0"},
            "prometheus_client",
            "metrics need the package prometheus-client;"
            " write `pip install 'dynserve[prometheus]'`",
        ),
        (
            {"admin": True},
            "grpc_channelz.v1",
            "admin needs grpcio-channelz; run: pip install 'dynserve[admin]'",
        ),
        (
            {"validate": True},
            "protovalidate",
            "validation needs the package protovalidate, 2.0 or later;"
            " write `pip install 'dynserve[validate]'`",
        ),
    ],
)
def test_an_extra_that_is_missing(
    settings: Any, module: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install, before anything listens."""
    monkeypatch.setitem(sys.modules, module, None)
    for name in list(sys.modules):
        if name.startswith((f"{module}.", "dynserve.observe.traces", "dynserve.observe.metrics")):
            monkeypatch.delitem(sys.modules, name)
    assert error_of(DynserveError, **settings) == text


def test_json_web_tokens_without_their_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the setting, too."""
    (tmp_path / "keys").write_text('{"keys": []}')
    monkeypatch.setitem(sys.modules, "jwt", None)
    text = error_of(
        CredentialsError, auth_jwks=str(tmp_path / "keys"), auth_issuer="any", auth_audience="any"
    )
    assert text == "auth_jwks: JSON web tokens need jwt: pip install 'dynserve[auth]'"


@pytest.mark.parametrize("setting", ["auth_jwks", "auth_tokens", "auth_api_keys", "tls_cert"])
def test_a_path_may_be_an_object(setting: str, tmp_path: Path) -> None:
    """As the types say; the error is about the file that is missing, not about its type."""
    given: dict[str, Any] = {setting: tmp_path / "none"}
    if setting == "auth_jwks":
        given |= {"auth_issuer": "any", "auth_audience": "any"}
    if setting == "tls_cert":
        given |= {"tls_key": tmp_path / "key"}
    assert str(tmp_path / "none") in error_of(CredentialsError, **given)


# ---- metrics


def scraped(address: str) -> str:
    """What Prometheus would get."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT) as response:
        return str(response.read().decode())


def test_metrics_are_served_with_the_server(serve: Serve) -> None:
    """On the port that the system chose, from the start to the end; all methods are there."""
    server = app_of().server("127.0.0.1:0", metrics="127.0.0.1:0")
    with server.in_thread():
        address = server.metrics_address
        assert re.fullmatch(r"127\.0\.0\.1:[1-9][0-9]*", address)
        with grpc.insecure_channel(server.addresses[0]) as channel:
            call: Any = channel.unary_unary("/echo.Echo/Unary")
            for _ in range(3):
                call(Item(number=1).SerializeToString(), timeout=WAIT)
        wanted = (
            'grpc_server_handled_total{grpc_code="OK",grpc_method="Unary",'
            'grpc_service="echo.Echo",grpc_type="unary"} 3.0'
        )
        while wanted not in (text := scraped(address)):  # it is counted after the response is sent
            pass
        assert "grpc.health" not in text
        assert 'grpc_method="Chat"' not in text  # it has no handler
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        scraped(address)


def test_without_metrics_there_is_no_address() -> None:
    """Nothing is served that nobody asked for."""
    assert app_of().server("127.0.0.1:0").metrics_address == ""


def test_a_port_for_metrics_that_is_taken(serve: Serve) -> None:
    """The server does not start, and leaves its own port free."""
    log: list[str] = []
    app = app_of()

    @app.lifespan
    def lifespan() -> Iterator[None]:
        log.append("start")
        yield
        log.append("end")

    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as probe:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        probe.bind(("127.0.0.1", 0))
        own = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        with (
            pytest.raises(AddressError) as caught,
            app.server(own, metrics=address).in_thread(),
        ):
            pass
    port = address.rpartition(":")[2]
    assert str(caught.value) == (
        f"cannot listen on {address}: port {port} is taken; port 0 lets the system choose"
    )
    assert log == ["start", "end"]
    with app_of().server(own).in_thread() as server:
        assert server.addresses == (own,)


def test_an_own_port_that_is_taken_ends_the_metrics(serve: Serve) -> None:
    """What was started before is stopped: both ports are free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = app_of().server(f"127.0.0.1:{taken.getsockname()[1]}", metrics="127.0.0.1:0")
        with pytest.raises(AddressError), server.in_thread():
            pass
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        scraped(server.metrics_address)


def test_an_address_for_metrics_that_is_none() -> None:
    """It is told when the server is made."""
    assert error_of(AddressError, metrics="9090") == (
        "cannot listen on 9090: expected HOST:PORT or [IPV6]:PORT"
    )


def test_a_worker_serves_no_metrics_itself() -> None:
    """Its supervisor does, for all of them."""
    settings = Settings({"metrics": "127.0.0.1:0"}, environ={})
    equipment = Equipment(settings, None, ["127.0.0.1:1"], is_worker=True)
    assert (equipment.metrics_address, len(equipment.observers)) == ("", 1)


def test_traces_are_outermost() -> None:
    """Lines of the access log then know their trace."""
    pytest.importorskip("opentelemetry")
    settings = Settings(
        {"access_log": "text", "metrics": "127.0.0.1:0", "traces": True}, environ={}
    )
    equipment = Equipment(settings, None, ["127.0.0.1:1"])
    assert [type(one).__name__ for one in equipment.observers] == ["Traces", "Metrics", "AccessLog"]


# ---- xDS


@pytest.mark.parametrize(
    ("listen", "given", "variables", "expected"),
    [
        (
            "127.0.0.1:5",
            {},
            {},
            "GRPC_XDS_BOOTSTRAP or GRPC_XDS_BOOTSTRAP_CONFIG in the environment",
        ),
        (
            "127.0.0.1:5",
            {},
            {"GRPC_XDS_BOOTSTRAP": ""},
            "GRPC_XDS_BOOTSTRAP or GRPC_XDS_BOOTSTRAP_CONFIG in the environment",
        ),
        (
            "127.0.0.1:5",
            {"engine": "aio"},
            {"GRPC_XDS_BOOTSTRAP": "f"},
            "the engine 'queue': grpc.aio has no xDS",
        ),
        (
            "127.0.0.1:0",
            {"engine": "queue"},
            {"GRPC_XDS_BOOTSTRAP_CONFIG": "{}"},
            "addresses HOST:PORT with a port, which the control plane knows",
        ),
        (
            "unix:s",
            {"engine": "queue"},
            {"GRPC_XDS_BOOTSTRAP_CONFIG": "{}"},
            "addresses HOST:PORT with a port, which the control plane knows",
        ),
    ],
)
def test_what_xds_needs(
    listen: str,
    given: Any,
    variables: dict[str, str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """gRPC itself would go on without, and serve nothing or anybody."""
    for name in ("GRPC_XDS_BOOTSTRAP", "GRPC_XDS_BOOTSTRAP_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError) as caught:
        app_of().server(listen, xds=True, **given)
    assert str(caught.value) == f"got xds=True, expected {expected}"


def test_xds_where_the_queue_engine_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then ``auto`` is grpc.aio, which has no xDS."""
    monkeypatch.setenv("GRPC_XDS_BOOTSTRAP_CONFIG", "{}")
    monkeypatch.setattr("dynserve.engines._problem", lambda: "it is broken")
    with pytest.raises(SettingError) as caught:
        app_of().server("127.0.0.1:5", xds=True, engine="auto")
    assert str(caught.value) == ("got xds=True, expected the engine 'queue': grpc.aio has no xDS")


def test_xds_that_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bootstrap, the engine, and a port, nothing is wrong."""
    monkeypatch.setenv("GRPC_XDS_BOOTSTRAP_CONFIG", "{}")
    check_xds(["127.0.0.1:5", "[::]:5"], Settings({"xds": True, "engine": "queue"}, environ={}))


# ---- the mode of unix sockets


@pytest.mark.parametrize("given", [0o600, "660", 0o777])
def test_a_socket_has_its_mode(engine: str, given: Any, tmp_path: Path) -> None:
    """From the settings to the file, while the server is called."""
    path = tmp_path / "s"
    with app_of().server(f"unix:{path}", unix_mode=given).in_thread() as server:
        mode = stat.S_IMODE(path.stat().st_mode)
        with grpc.insecure_channel(server.addresses[0]) as channel:
            call: Any = channel.unary_unary("/echo.Echo/Unary")
            assert call(b"", timeout=WAIT) == b""
    assert mode == (0o660 if given == "660" else given)
    assert not path.exists()


def test_a_mode_without_a_socket_is_refused() -> None:
    """It would protect nothing."""
    assert error_of(SettingError, unix_mode=0o660) == (
        "got unix_mode='660', expected an address unix:PATH beside 127.0.0.1:0"
    )
