"""What a channel is told, and which targets it takes."""

from __future__ import annotations

import json
import threading
from typing import Any

import grpc
import pytest

import dynserve
from dynserve import CredentialsError, Kind, MethodPolicy, Retry, StatusError, TargetError
from dynserve.client.channel import ChannelSettings
from tests.client.worlds import World, every_world, in_world
from tests.echo import Item, app_with, schema


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
        "grpc.keepalive_timeout_ms": 1500,
        "grpc.max_receive_message_length": 7,
        "grpc.max_send_message_length": 7,
        "grpc.ssl_target_name_override": "name",
        "grpc.default_authority": "name",
    }
    assert options_of(service_config="{}")["grpc.service_config"] == "{}"


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
        (lambda: Retry(attempts=1), "got attempts=1, expected 2 to 5, the first included"),
        (lambda: Retry(attempts=6), "got attempts=6, expected 2 to 5, the first included"),
        (lambda: Retry(initial_backoff=0), "got initial_backoff=0, expected more than 0"),
        (lambda: Retry(max_backoff=-1), "got max_backoff=-1, expected more than 0"),
        (lambda: Retry(multiplier=0), "got multiplier=0, expected more than 0"),
        (lambda: Retry(codes=[]), "got codes=(), expected at least one status code"),
        (
            lambda: dynserve.service_config(timeout=0),
            "got timeout=0, expected more than 0 seconds",
        ),
        (
            lambda: dynserve.service_config(methods={"a/b/c": MethodPolicy()}),
            "got 'a/b/c' as a method, expected 'pkg.Service/Method' or 'pkg.Service'",
        ),
    ],
)
def test_a_policy_out_of_range_is_refused(make: Any, text: str) -> None:
    """gRPC would leave out the whole config without a word."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        make()
    assert str(caught.value) == text


def test_either_sources_or_a_schema() -> None:
    """Not both."""
    with pytest.raises(TypeError) as caught:
        dynserve.connect("a:1", "x.proto", schema=schema)
    assert str(caught.value) == "give either sources or a schema, not both"


def test_credentials_errors_are_of_the_command_line_too() -> None:
    """The words were wrong: exit code 2."""
    assert (CredentialsError("a", "b").exit_code, str(CredentialsError("a", "b"))) == (2, "a: b")
