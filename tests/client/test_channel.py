"""What a channel is told, and which targets it takes."""

from __future__ import annotations

import contextlib
import json
import math
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import dynserve
from dynserve import (
    CredentialsError,
    Kind,
    MethodPolicy,
    Retry,
    StatusError,
    TargetError,
    service_config,
)
from dynserve.client.channel import ChannelSettings
from tests.client.worlds import World, every_world, in_world
from tests.echo import Item, app_with, schema

ATTEMPTS = "expected a whole number from 2 to 5, the first included"
SECONDS = "expected 0.001 to 315576000000 seconds"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (
            "",
            "'': expected HOST:PORT, unix:PATH, or a URI that gRPC knows, such as dns:///HOST:PORT",
        ),
        (
            "localhost",
            "localhost: expected HOST:PORT, unix:PATH, or a URI that gRPC knows, such as"
            " dns:///HOST:PORT",
        ),
        (
            "50051",
            "50051: expected HOST:PORT, unix:PATH, or a URI that gRPC knows, such as"
            " dns:///HOST:PORT; did you mean localhost:50051?",
        ),
        (
            ":50051",
            ":50051: expected HOST:PORT, unix:PATH, or a URI that gRPC knows, such as"
            " dns:///HOST:PORT; did you mean localhost:50051?",
        ),
        ("localhost:99999", "localhost:99999: a port is a number from 0 to 65535"),
        ("localhost:http", "localhost:http: a port is a number from 0 to 65535"),
        ("localhost:", "localhost:: a port is a number from 0 to 65535"),
        ("http://a.b:80/", "http://a.b:80/: a URL; write 'a.b:80'"),
        ("http://a.b", "http://a.b: a URL; write 'a.b:80'"),
        ("https://a.b", "https://a.b: a URL; write 'a.b:443', and tls=True"),
        ("grpcs://a.b:1", "grpcs://a.b:1: a URL; write 'a.b:1', and tls=True"),
    ],
)
def test_a_target_that_is_none_says_what_is(target: str, text: str) -> None:
    """gRPC would take it for the name of a host, and fail much later."""
    for connect in (dynserve.connect, dynserve.aio.connect):
        with pytest.raises(TargetError) as caught:
            connect(target)
        assert str(caught.value) == text


@pytest.mark.parametrize("target", ["unix:x", "dns:a:1", "dns:///a:1", "ipv6:[::1]:1", "[::1]:1"])
def test_targets_of_other_forms_are_left_to_grpc(target: str) -> None:
    """It knows more of them than anybody else."""
    dynserve.connect(target, schema=schema).close()


def test_what_is_no_text_is_no_target() -> None:
    """Nor is a text a schema."""
    with pytest.raises(TypeError) as caught:
        dynserve.connect(50051)  # type: ignore[arg-type]
    assert str(caught.value) == "got 50051 as target, expected a str such as 'localhost:50051'"
    with pytest.raises(TypeError) as caught:
        dynserve.connect("a:1", schema="x.proto")  # type: ignore[arg-type]
    assert str(caught.value) == "got schema='x.proto', expected a Schema; give a source by itself"


def options_of(**settings: Any) -> dict[str, Any]:
    return dict(ChannelSettings("a:1", **settings)._options())


def test_arguments_are_those_of_the_core() -> None:
    """Seconds become milliseconds, a policy JSON; what is not said is left to gRPC."""
    assert options_of() == {"grpc.primary_user_agent": "dynserve"}
    assert options_of(
        keepalive=300,
        keepalive_timeout=1.5,
        max_message_bytes=7,
        service_config={"a": 1},
        server_name="name",
        options=[("grpc.primary_user_agent", "mine")],
    ) == {
        "grpc.primary_user_agent": "mine",
        "grpc.service_config": '{"a": 1}',
        "grpc.keepalive_time_ms": 300_000,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.keepalive_timeout_ms": 1500,
        "grpc.max_receive_message_length": 7,
        "grpc.max_send_message_length": 7,
        "grpc.ssl_target_name_override": "name",
        "grpc.default_authority": "name",
    }
    assert options_of(service_config="{}")["grpc.service_config"] == "{}"


@contextlib.contextmanager
def overheard(target: str) -> Iterator[tuple[str, queue.SimpleQueue[bytes]]]:
    """The target by way of a socket that keeps what the client sends."""
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    host, _, port = target.rpartition(":")

    def pump(source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        with contextlib.suppress(OSError):  # either side may be gone first
            while data := source.recv(65536):
                if is_client:
                    heard.put(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def run() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection((host, int(port))) as server:
            back = threading.Thread(target=pump, args=(server, client, False))
            back.start()
            pump(client, server, True)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", heard
        thread.join()


def test_a_quiet_connection_is_probed() -> None:
    """While a call is under way, again and again: what is on the way may have dropped it."""
    ping = b"\0\0\x08\x06\0\0\0\0\0"  # its frame's head: 8 bytes, type, no flag, no stream
    over = threading.Event()

    def wait(_: Any) -> Any:
        over.wait(20)
        return Item()

    # Servers of gRPC's core take two such probes within five minutes unless told otherwise.
    lenient = [("grpc.http2.min_recv_ping_interval_without_data_ms", 1)]
    app = app_with(wait, Kind.UNARY_UNARY)
    with app.server("127.0.0.1:0", options=lenient).in_thread() as server:
        address = server.addresses[0]
        with overheard(address) as (target, heard):
            own = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
            with dynserve.connect(target, schema=schema, keepalive=0.1, options=own) as client:
                future = client.method("echo.Echo/Unary").future()
                sent = b""
                while sent.count(ping) < 3:
                    sent += heard.get(timeout=20)
                over.set()
                future.result(20)


@every_world
def test_a_message_may_be_so_long(world: World) -> None:
    """What is longer is refused by the client itself."""
    app = app_with(lambda request: Item(text="x" * 2000), Kind.UNARY_UNARY)
    limit = {"max_message_bytes": 1000}
    with pytest.raises(StatusError) as caught:
        in_world(world, app, "echo.Echo/Unary", client=limit)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@every_world
def test_a_call_is_tried_again_by_the_service_config(world: World) -> None:
    """gRPC itself repeats what ended with a code that the policy names."""
    attempts = []

    def handler(_: Any) -> Any:
        attempts.append(1)
        if len(attempts) < 3:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "not yet")
        return Item(number=len(attempts))

    retry = Retry(attempts=3, initial_backoff=0.01, max_backoff=0.01)
    policy = {"service_config": dynserve.service_config(retry=retry)}
    app = app_with(handler, Kind.UNARY_UNARY)
    assert in_world(world, app, "echo.Echo/Unary", client=policy).number == 3


@every_world
def test_a_deadline_of_the_service_config_holds(world: World) -> None:
    """The sooner of it and the call's own counts; for the methods that it names."""
    over = threading.Event()

    def handler(_: Any, context: Any) -> Any:
        context.add_callback(over.set)
        over.wait(20)
        return Item()

    methods = {"echo.Echo/Unary": MethodPolicy(timeout=0.1)}
    policy = {"service_config": dynserve.service_config(timeout=9, methods=methods)}
    with pytest.raises(StatusError) as caught:
        in_world(world, app_with(handler, Kind.UNARY_UNARY), "echo.Echo/Unary", client=policy)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_service_config_is_written() -> None:
    """Durations and codes as gRPC reads them, what names a method before what holds for all."""
    written = dynserve.service_config(
        retry=Retry(codes=[grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED]),
        timeout=1.25,
        wait_for_ready=True,
        methods={"a.B": MethodPolicy(timeout=2), "/a.B/C": MethodPolicy()},
        load_balancing="round_robin",
        health_check="",
        retry_throttling=(10, 0.1),
    )
    assert json.loads(written) == {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {"name": [{"service": "a.B"}], "timeout": "2s"},
            {"name": [{"service": "a.B", "method": "C"}]},
            {
                "name": [{}],
                "timeout": "1.25s",
                "waitForReady": True,
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2.0,
                    "retryableStatusCodes": ["UNAVAILABLE", "ABORTED"],
                },
            },
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        "healthCheckConfig": {"serviceName": ""},
    }
    assert dynserve.service_config() == "{}"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Retry(attempts=1), f"attempts=1, {ATTEMPTS}"),
        (lambda: Retry(attempts=6), f"attempts=6, {ATTEMPTS}"),
        (lambda: Retry(initial_backoff=0), f"initial_backoff=0, {SECONDS}"),
        (lambda: Retry(initial_backoff=1e-10), f"initial_backoff=1e-10, {SECONDS}"),
        (lambda: Retry(max_backoff=-1), f"max_backoff=-1, {SECONDS}"),
        (lambda: Retry(max_backoff=math.inf), f"max_backoff=inf, {SECONDS}"),
        (lambda: Retry(max_backoff=math.nan), f"max_backoff=nan, {SECONDS}"),
        (lambda: Retry(multiplier=0), "multiplier=0, expected more than 0"),
        (lambda: Retry(multiplier=math.inf), "multiplier=inf, expected more than 0"),
        (lambda: Retry(codes=[]), "codes=(), expected at least one status code"),
        (lambda: MethodPolicy(timeout=math.inf), f"timeout=inf, {SECONDS}"),
        (lambda: service_config(timeout=0), f"timeout=0, {SECONDS}"),
        (
            lambda: service_config(methods={"a/b/c": MethodPolicy()}),
            "'a/b/c' as a method, expected 'pkg.Service/Method' or 'pkg.Service'",
        ),
        (
            lambda: service_config(load_balancing=""),
            "load_balancing='', expected a name such as 'round_robin'",
        ),
        (
            lambda: service_config(retry_throttling=(0, 0.1)),
            "retry_throttling tokens=0, expected a whole number from 1 to 1000",
        ),
        (
            lambda: service_config(retry_throttling=(5000, 0.1)),
            "retry_throttling tokens=5000, expected a whole number from 1 to 1000",
        ),
        (
            lambda: service_config(retry_throttling=(10, -1)),
            "retry_throttling ratio=-1, expected 0.001 to 1000",
        ),
        (
            lambda: service_config(retry_throttling=(10, 0.0001)),
            "retry_throttling ratio=0.0001, expected 0.001 to 1000",
        ),
        (
            lambda: service_config(retry_throttling=(10, math.nan)),
            "retry_throttling ratio=nan, expected 0.001 to 1000",
        ),
    ],
)
def test_a_policy_out_of_range_is_refused(make: Any, text: str) -> None:
    """Every call on the channel would fail with INVALID_ARGUMENT."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        make()
    assert str(caught.value) == f"got {text}"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Retry(attempts=2.5), f"attempts=2.5, {ATTEMPTS}"),  # type: ignore[arg-type]
        (lambda: Retry(attempts=True), f"attempts=True, {ATTEMPTS}"),
        (lambda: Retry(multiplier="2"), "multiplier='2', expected a number"),  # type: ignore[arg-type]
        (
            lambda: Retry(codes="UNAVAILABLE"),  # type: ignore[arg-type]
            "codes='UNAVAILABLE', expected a list of grpc.StatusCode",
        ),
        (
            lambda: Retry(codes=grpc.StatusCode.UNAVAILABLE),  # type: ignore[arg-type]
            "codes=<StatusCode.UNAVAILABLE: (14, 'unavailable')>, expected a list of"
            " grpc.StatusCode",
        ),
        (
            lambda: Retry(codes=["UNAVAILABLE"]),  # type: ignore[list-item]
            "'UNAVAILABLE' as a status code, expected a grpc.StatusCode",
        ),
        (
            lambda: MethodPolicy(timeout="5"),  # type: ignore[arg-type]
            "timeout='5', expected a number",
        ),
        (
            lambda: service_config(load_balancing=5),  # type: ignore[arg-type]
            "load_balancing=5, expected a name such as 'round_robin'",
        ),
        (
            lambda: service_config(retry_throttling=10),  # type: ignore[arg-type]
            "retry_throttling=10, expected tokens and a ratio",
        ),
        (
            lambda: service_config(retry_throttling=(1.5, 1)),  # type: ignore[arg-type]
            "retry_throttling tokens=1.5, expected a whole number from 1 to 1000",
        ),
        (
            lambda: service_config(retry_throttling=(10, "1")),  # type: ignore[arg-type]
            "retry_throttling ratio='1', expected a number",
        ),
    ],
)
def test_a_policy_of_the_wrong_types_is_refused(make: Any, text: str) -> None:
    """Where it is written, not when its text is made or gRPC reads it."""
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value) == f"got {text}"


def test_the_ends_of_the_ranges_are_taken() -> None:
    """By gRPC, too; a code may be given by its number."""
    numbers: Any = [14]
    retry = Retry(5, initial_backoff=0.001, max_backoff=315_576_000_000, codes=numbers)
    written = service_config(retry=retry, timeout=315_576_000_000, retry_throttling=(1000, 0.001))
    assert json.loads(written) == {
        "methodConfig": [
            {
                "name": [{}],
                "timeout": "315576000000s",
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.001s",
                    "maxBackoff": "315576000000s",
                    "backoffMultiplier": 2.0,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.001},
    }
    app = app_with(lambda request: request, Kind.UNARY_UNARY)
    policy = {"service_config": written}
    assert in_world("sync", app, "echo.Echo/Unary", Item(number=3), client=policy).number == 3


def test_either_sources_or_a_schema() -> None:
    """Not both."""
    with pytest.raises(TypeError) as caught:
        dynserve.connect("a:1", "x.proto", schema=schema)
    assert str(caught.value) == "give either sources or a schema, not both"


def test_credentials_errors_are_of_the_command_line_too() -> None:
    """The words were wrong: exit code 2."""
    assert (CredentialsError("a", "b").exit_code, str(CredentialsError("a", "b"))) == (2, "a: b")
