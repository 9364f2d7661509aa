"""What `dynserve envoy` writes, run by the real Envoy in front of real servers."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import dynserve
from dynserve import App, StatusError
from tests.authority import Authority
from tests.real.callers import Caller, Outcome, Send
from tests.real.conftest import Connect
from tests.real.proxy import Envoy, Upstream, envoy_binary, until, validate, written
from tests.running import SECONDS

pytestmark = pytest.mark.real

PROTO = """\
syntax = "proto3";
package shop;
import "google/api/annotations.proto";

service Shop {
  rpc Get(Item) returns (Item) { option (google.api.http) = {get: "/v1/items/{name}"}; }
  rpc Put(Item) returns (Item) { option (google.api.http) = {post: "/v1/items" body: "*"}; }
  rpc Down(Item) returns (stream Item) {
    option (google.api.http) = {get: "/v1/items/{name}/parts"};
  }
  rpc Up(stream Item) returns (Item);
  rpc Chat(stream Item) returns (stream Item);
  rpc Wait(Item) returns (stream Item);
  rpc Bare(Item) returns (Item);
}

message Item {
  string name = 1;
  int32 count = 2;
  int32 unit_price = 3;
  bytes image = 4;
}
"""

PLUGIN = """\
import asyncio
import os

import grpc
from google.rpc.error_details_pb2 import ErrorInfo

from dynserve import App, StatusError

app = App("shop.proto")
shop = app.service("shop.Shop")


@shop.unary_unary
def get(item, context):
    if item.name == "none":
        reason = ErrorInfo(reason="SOLD_OUT", domain="shop")
        raise StatusError(grpc.StatusCode.NOT_FOUND, "there is none", details=[reason])
    if item.name == "time":
        return {"name": str(context.time_remaining())}
    if item.name == "headers":
        return {"name": str(dict(context.invocation_metadata()).get("x-user"))}
    return {"name": item.name, "count": os.getpid(), "unit_price": 2}


@shop.unary_unary
def put(item):
    return item


@shop.unary_unary
def bare(item):
    return item


@shop.unary_stream
def down(item):
    for number in range(3):
        yield {"name": item.name, "count": number}


@shop.stream_unary
def up(items):
    return {"count": sum(item.count for item in items)}


@shop.stream_stream
async def chat(items):
    async for item in items:
        yield item


@shop.unary_stream
async def wait(item):
    yield item
    await asyncio.Event().wait()
"""

# What Envoy asks, in as much of its own files as is used here; the numbers are theirs.
AUTHORIZATION = """\
syntax = "proto3";
package envoy.service.auth.v3;
import "google/rpc/status.proto";

service Authorization { rpc Check(CheckRequest) returns (CheckResponse); }

message CheckRequest { AttributeContext attributes = 1; }
message AttributeContext {
  Request request = 4;
  message Request { HttpRequest http = 2; }
  message HttpRequest { string method = 2; map<string, string> headers = 3; string path = 4; }
}
message CheckResponse {
  google.rpc.Status status = 1;
  oneof http_response { DeniedHttpResponse denied_response = 2; OkHttpResponse ok_response = 3; }
}
message HeaderValue { string key = 1; string value = 2; }
message HeaderValueOption { HeaderValue header = 1; }
message OkHttpResponse { repeated HeaderValueOption headers = 2; }
message DeniedHttpResponse { HttpStatus status = 1; string body = 3; }
message HttpStatus { int32 code = 1; }
"""
RATE_LIMIT = """\
syntax = "proto3";
package envoy.service.ratelimit.v3;

service RateLimitService { rpc ShouldRateLimit(RateLimitRequest) returns (RateLimitResponse); }

message RateLimitRequest { string domain = 1; repeated Descriptor descriptors = 2; }
message Descriptor {
  repeated Entry entries = 1;
  message Entry { string key = 1; string value = 2; }
}
message RateLimitResponse {
  Code overall_code = 1;
  enum Code { UNKNOWN = 0; OK = 1; OVER_LIMIT = 2; }
}
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin, beside its .proto."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.proto").write_text(PROTO)
    (folder / "shop.py").write_text(PLUGIN)
    return folder / "shop.py"


@pytest.fixture(scope="module")
def proto(plugin: Path) -> str:
    """The .proto, for the command line and for clients."""
    return str(plugin.with_suffix(".proto"))


@pytest.fixture(scope="module")
def upstream(plugin: Path) -> Iterator[Upstream]:
    """A server that lives as long as the module."""
    envoy_binary()  # else there is nothing to test
    with Upstream.running(plugin) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(
    upstream: Upstream, proto: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Envoy]:
    """Envoy in front of it, as it is by default, with JSON and pages of one origin."""
    folder = tmp_path_factory.mktemp("envoy")
    words = (proto, "--upstream", upstream.address, "--cors-origin", "https://shop.example")
    with Envoy.running(written(folder / "envoy.yaml", *words)) as envoy:
        yield envoy


@contextmanager
def proxied(folder: Path, *words: str) -> Iterator[Envoy]:
    """Envoy with options of a test's own."""
    envoy_binary()
    with Envoy.running(written(folder / "envoy.yaml", *words)) as envoy:
        yield envoy


def outcome(address: str, proto: str, method: str, request: Any, **options: Any) -> Any:
    """The response of a call; its code and text where it fails."""
    options.setdefault("timeout", SECONDS)
    with dynserve.connect(address, proto) as client:
        try:
            return client.method(f"shop.Shop/{method}")(request, **options)
        except StatusError as error:
            return error.code().name, error.details()


def fetched(
    address: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """The status, body and headers of an HTTP request; a POST where there is a body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    method = named.pop("method", None)
    request = urllib.request.Request(f"http://{address}{path}", body, named, method=method)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


# ---- Envoy takes it


COMBINATIONS: dict[str, list[str]] = {
    "nothing": [],
    "a schema": ["{proto}"],
    "every method as JSON": [
        "{proto}", "--auto-mapping", "--json-proto-names", "--json-defaults",
    ],
    "a plugin": ["{plugin}"],
    "servers": ["--upstream", "127.0.0.1:1", "--upstream", "[::1]:2", "--balance", "round-robin"],
    "a name": ["--upstream", "localhost:50051", "--dns-refresh", "1.5"],
    "names and addresses": ["--upstream", "localhost:1", "--upstream", "127.0.0.1:2"],
    "sockets": ["--upstream", "unix:/tmp/a", "--listen", "unix:/tmp/b", "--admin", "unix:/tmp/c"],
    "a socket and an address": ["--upstream", "unix:/tmp/a", "--upstream", "127.0.0.1:2"],
    "no administration": ["--admin", ""],
    "TLS for clients": ["--tls-cert", "{cert}", "--tls-key", "{key}"],
    "mutual TLS": ["--tls-cert", "{cert}", "--tls-key", "{key}", "--tls-client-ca", "{ca}"],
    "TLS to servers": ["--upstream-ca", "{ca}", "--upstream-name", "shop.example"],
    "TLS to a name": ["--upstream", "localhost:1", "--upstream-ca", "{ca}"],
    "mutual TLS to servers": [
        "--upstream-ca", "{ca}", "--upstream-name", "shop.example", "--upstream-cert", "{cert}",
        "--upstream-key", "{key}",
    ],
    "health": [
        "--health-interval", "0.25", "--health-timeout", "0.1", "--health-failures", "5",
        "--health-service", "shop.Shop", "--panic-threshold", "33.5",
    ],
    "no retries": ["--retries", "0"],
    "retries": [
        "--retry-on", "unavailable", "--retries", "1", "--per-try-timeout", "2", "--retry-budget",
        "50", "--retry-concurrency", "0", "--retry-buffer", "0",
    ],
    "breakers": ["--max-connections", "1", "--max-pending", "1", "--max-requests", "1"],
    "no ejection": ["--eject-after", "0"],
    "ejection": ["--eject-after", "1", "--eject-time", "0.5", "--eject-percent", "100"],
    "authorization": ["--ext-authz", "127.0.0.1:1", "--ext-authz-timeout", "0.2"],
    "authorization by name": ["--ext-authz", "localhost:1", "--ext-authz-fail-open"],
    "rate limits": [
        "--rate-limit-service", "127.0.0.1:1", "--rate-limit-domain", "d", "--rate-limit-by",
        "header:x-user", "--rate-limit-by", "path", "--rate-limit-timeout", "1",
        "--rate-limit-fail-closed",
    ],
    "local rate limit": [
        "--local-rate-limit", "5", "--local-rate-limit-burst", "9",
        "--local-rate-limit-per-connection",
    ],
    "browsers": [
        "--cors-origin", "https://a.example", "--cors-origin", "*", "--cors-header", "x-user",
    ],
    "no browsers": ["--no-grpc-web"],
    "limits": [
        "--max-timeout", "30", "--stream-idle-timeout", "300", "--client-keepalive", "0",
        "--client-streams", "10", "--client-connections", "10", "--client-connection-age", "60",
        "--drain-timeout", "1", "--upstream-keepalive", "300", "--connect-timeout", "0.5",
        "--trusted-hops", "1",
    ],
    "text log": ["--access-log", "text"],
    "no log": ["--access-log", "off"],
    "all": [
        "{proto}", "--tls-cert", "{cert}", "--tls-key", "{key}", "--tls-client-ca", "{ca}",
        "--upstream", "localhost:1", "--upstream-ca", "{ca}", "--ext-authz", "127.0.0.1:1",
        "--rate-limit-service", "127.0.0.1:1", "--local-rate-limit", "5", "--cors-origin", "*",
        "--auto-mapping",
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def names(
    plugin: Path, authorities: list[Authority], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What stands for files in the table."""
    folder = tmp_path_factory.mktemp("certificates")
    key, cert = authorities[0].issue("shop.example")
    for name, content in {"key": key, "cert": cert, "ca": authorities[0].root}.items():
        (folder / name).write_bytes(content)
    files = {name: str(folder / name) for name in ("key", "cert", "ca")}
    return {**files, "plugin": str(plugin), "proto": str(plugin.with_suffix(".proto"))}


@pytest.mark.parametrize("ending", [".yaml", ".json"])
@pytest.mark.parametrize("words", COMBINATIONS.values(), ids=COMBINATIONS)
def test_envoy_takes_it(
    words: list[str], ending: str, names: dict[str, str], tmp_path: Path
) -> None:
    """Envoy's own validation passes whatever options are put together, and warns of nothing."""
    envoy_binary()
    config = written(tmp_path / f"envoy{ending}", *(word.format(**names) for word in words))
    code, said = validate(config)
    assert code == 0, said
    warnings = [line for line in said.splitlines() if "[info]" not in line]
    assert warnings == [f"configuration '{config}' OK"]


# ---- every kind of call


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        ("Put", {"name": "a"}, [{"name": "a"}]),
        (
            "Down",
            {"name": "a"},
            [{"name": "a"}, {"name": "a", "count": 1}, {"name": "a", "count": 2}],
        ),
        ("Up", [{"count": 1}, {"count": 2}], [{"count": 3}]),
        ("Chat", [{"count": 1}, {"count": 2}], [{"count": 1}, {"count": 2}]),
    ],
)
def test_every_kind(
    method: str, request_: Any, expected: list[Any], proxy: Envoy, proto: str, connect: Connect
) -> None:
    """Calls of all four kinds go through to a server and back."""
    caller: Caller = connect(proxy.address, proto)
    got = caller.call(f"shop.Shop/{method}", request_)
    assert (got.responses, got.code) == (expected, "OK")


def test_a_conversation(proxy: Envoy, proto: str, connect: Connect) -> None:
    """Each side waits for the other: nothing is held back on the way."""
    caller: Caller = connect(proxy.address, proto)
    got = caller.converse("shop.Shop/Chat", *(Send({"count": number}) for number in (1, 2, 3)))
    assert (got.responses, got.code) == ([{"count": 1}, {"count": 2}, {"count": 3}], "OK")


def test_an_error_with_details(proxy: Envoy, proto: str, connect: Connect) -> None:
    """A status arrives as the server gave it, its details too."""
    caller: Caller = connect(proxy.address, proto)
    got: Outcome = caller.call("shop.Shop/Get", {"name": "none"})
    detail = ("google.rpc.ErrorInfo", {"reason": "SOLD_OUT", "domain": "shop"})
    assert (got.code, got.text, got.details) == ("NOT_FOUND", "there is none", [detail])


def test_reflection(proxy: Envoy, connect: Connect) -> None:
    """Clients discover through Envoy what the servers serve."""
    services = connect(proxy.address).services()
    assert "shop.Shop" in services


def test_an_unknown_method_is_answered_by_the_server(proxy: Envoy, proto: str) -> None:
    """What is gRPC goes through, so a server says what may be meant."""
    with grpc.insecure_channel(proxy.address) as channel:
        call: Any = channel.unary_unary("/shop.Shop/Gett")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "did you mean 'Get'?" in str(caught.value.details())


# ---- JSON


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("/v1/items", {"name": "a", "unitPrice": 3}, 200, {"name": "a", "unitPrice": 3}),
        ("/v1/items", {"name": "a", "unit_price": 3}, 200, {"name": "a", "unitPrice": 3}),
        (
            "/v1/items/a/parts",
            None,
            200,
            [{"name": "a"}, {"name": "a", "count": 1}, {"name": "a", "count": 2}],
        ),
        (
            "/v1/items/none",
            None,
            404,
            {
                "code": 5,
                "message": "there is none",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "SOLD_OUT",
                        "domain": "shop",
                    }
                ],
            },
        ),
    ],
    ids=["post", "names of the .proto", "stream", "error"],
)
def test_json(path: str, body: Any, status: int, expected: Any, proxy: Envoy) -> None:
    """Methods with google.api.http are called by plain HTTP; an error has its details."""
    sent = None if body is None else json.dumps(body).encode()
    code, answer, headers = fetched(proxy.address, path, sent, content_type="application/json")
    got = json.loads(answer)
    assert (code, got, headers["content-type"]) == (status, expected, "application/json")


def test_json_get(proxy: Envoy, upstream: Upstream) -> None:
    """A field comes from the path, others from the query."""
    code, answer, _ = fetched(proxy.address, "/v1/items/tea?count=1")
    expected = {"name": "tea", "count": upstream.process.pid, "unitPrice": 2}
    assert (code, json.loads(answer)) == (200, expected)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/nothing", None, 404),
        ("/shop.Shop/Bare", b"{}", 404),
        ("/v1/items/a?colour=red", None, 400),
    ],
    ids=["no method", "no rule", "no such field"],
)
def test_json_that_fits_nothing(path: str, body: bytes | None, status: int, proxy: Envoy) -> None:
    """What is no call of a method by JSON is refused, and no server is bothered."""
    before = proxy.statistic("cluster.servers.upstream_rq_total")
    code, _, _ = fetched(proxy.address, path, body, content_type="application/json")
    assert (code, proxy.statistic("cluster.servers.upstream_rq_total")) == (status, before)


def test_json_as_asked_for(upstream: Upstream, proto: str, tmp_path: Path) -> None:
    """Methods without a rule, names as in the .proto and defaults, each where it is asked for."""
    words = ("--auto-mapping", "--json-proto-names", "--json-defaults")
    with proxied(tmp_path, proto, "--upstream", upstream.address, *words) as envoy:
        body = json.dumps({"name": "a"}).encode()
        code, answer, _ = fetched(
            envoy.address, "/shop.Shop/Bare", body, content_type="application/json"
        )
    expected = {"name": "a", "count": 0, "unit_price": 0, "image": ""}
    assert (code, json.loads(answer)) == (200, expected)


def test_what_is_no_json(proxy: Envoy) -> None:
    """A body that does not parse is the client's mistake, and says where."""
    code, answer, _ = fetched(proxy.address, "/v1/items", b"{", content_type="application/json")
    assert (code, b"Unexpected end of string" in answer) == (400, True)


def test_large_json(proxy: Envoy) -> None:
    """A body of megabytes is translated, there and back."""
    body = json.dumps({"image": base64.b64encode(bytes(3_900_000)).decode()}).encode()
    code, answer, _ = fetched(proxy.address, "/v1/items", body, content_type="application/json")
    assert (code, json.loads(answer)) == (200, json.loads(body))


# ---- browsers


@pytest.mark.parametrize("form", ["application/grpc-web+proto", "application/grpc-web-text"])
def test_grpc_web(form: str, proxy: Envoy, proto: str) -> None:
    """A browser's call, in both forms: a message, then the trailers as a frame of their own."""
    item = dynserve.Schema.load(proto).message("shop.Item")
    message = item(name="tea").SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    is_text = form.endswith("text")
    sent = base64.b64encode(body) if is_text else body
    code, answer, _ = fetched(
        proxy.address, "/shop.Shop/Put", sent, content_type=form, accept=form, x_grpc_web="1"
    )
    # The text is several in a row, each with its padding.
    parts = [answer[at : at + 4] for at in range(0, len(answer), 4)]
    got = b"".join(map(base64.b64decode, parts)) if is_text else answer
    assert (code, got[: len(body)]) == (200, body)
    trailers = got[len(body) :]
    assert trailers[:5] == b"\x80" + len(trailers[5:]).to_bytes(4, "big")
    assert b"grpc-status:0\r\n" in trailers


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("https://shop.example", "https://shop.example"), ("https://evil.example", None)],
)
def test_cors(origin: str, allowed: str | None, proxy: Envoy) -> None:
    """A page of the origin may send gRPC-Web and read the status; of another it may not."""
    _, _, headers = fetched(
        proxy.address,
        "/shop.Shop/Put",
        method="OPTIONS",
        origin=origin,
        access_control_request_method="POST",
    )
    assert headers.get("access-control-allow-origin") == allowed
    if allowed is not None:
        assert "x-grpc-web" in headers["access-control-allow-headers"]
    _, _, headers = fetched(proxy.address, "/v1/items/tea", origin=origin)
    assert headers.get("access-control-allow-origin") == allowed
    assert ("grpc-status" in headers.get("access-control-expose-headers", "")) == bool(allowed)


# ---- the hooks


@contextmanager
def serving(source: str, method: str, handler: Any) -> Iterator[str]:
    """The address of a server with one method."""
    app = App(source)
    app.service(method.partition("/")[0]).add(handler, method.partition("/")[2])
    with app.server("127.0.0.1:0").in_thread(grace=None) as server:
        yield server.addresses[0]


def _check(request: Any) -> dict[str, Any]:
    """Who says that she is Ada may go on, and the server is told so."""
    http = request.attributes.request.http
    if http.headers.get("authorization") == "Bearer ada":
        header = {"header": {"key": "x-user", "value": f"Ada of {http.path}"}}
        return {"status": {"code": 0}, "ok_response": {"headers": [header]}}
    denied = {"status": {"code": 403}, "body": "not Ada"}
    return {"status": {"code": 7}, "denied_response": denied}


def test_authorization(upstream: Upstream, proto: str, tmp_path: Path) -> None:
    """Only what the service permits reaches a server, with what the service adds."""
    path = "envoy.service.auth.v3.Authorization/Check"
    ada = [("authorization", "Bearer ada")]
    with (
        serving(AUTHORIZATION, path, _check) as address,
        proxied(tmp_path, proto, "--upstream", upstream.address, "--ext-authz", address) as envoy,
    ):
        before = envoy.statistic("cluster.servers.upstream_rq_total")
        refused = outcome(envoy.address, proto, "Get", {"name": "headers"})
        as_json = fetched(envoy.address, "/v1/items/headers")
        assert envoy.statistic("cluster.servers.upstream_rq_total") == before
        permitted = outcome(envoy.address, proto, "Get", {"name": "headers"}, metadata=ada)
        plain = fetched(envoy.address, "/v1/items/headers", authorization="Bearer ada")
    assert (refused, as_json[:2]) == (("PERMISSION_DENIED", "not Ada"), (403, b"not Ada"))
    assert permitted.name == "Ada of /shop.Shop/Get"
    assert json.loads(plain[1]) == {"name": "Ada of /v1/items/headers"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], "UNAVAILABLE"), (["--ext-authz-fail-open"], "OK")],
    ids=["closed", "open"],
)
def test_authorization_that_does_not_answer(
    words: list[str], expected: str, upstream: Upstream, proto: str, tmp_path: Path
) -> None:
    """Calls are refused so that a client may try again, unless the hook is to fail open."""
    hook = ("--ext-authz", "127.0.0.1:1", *words)
    with proxied(tmp_path, proto, "--upstream", upstream.address, *hook) as envoy:
        got = outcome(envoy.address, proto, "Put", {"name": "a"})
    assert (got[0] if isinstance(got, tuple) else "OK") == expected


def test_rate_limit_service(upstream: Upstream, proto: str, tmp_path: Path) -> None:
    """The service is told what was asked for, and who it finds over its limit is refused."""
    seen = []

    def limit(request: Any) -> dict[str, str]:
        entries = [(e.key, e.value) for d in request.descriptors for e in d.entries]
        seen.append((request.domain, len(request.descriptors), entries))
        over = ("path", "/shop.Shop/Put") in entries and ("x-user", "eve") in entries
        return {"overall_code": "OVER_LIMIT" if over else "OK"}

    path = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
    with serving(RATE_LIMIT, path, limit) as address:
        words = ["--upstream", upstream.address, "--rate-limit-service", address]
        words += ["--rate-limit-timeout", "20", "--rate-limit-domain", "shops"]
        for by in ("address", "path", "header:x-user"):
            words += ["--rate-limit-by", by]
        with proxied(tmp_path, proto, *words) as envoy:
            got = [
                outcome(envoy.address, proto, "Put", {"name": user}, metadata=[("x-user", user)])
                for user in ("ada", "eve")
            ]
    assert got[0].name == "ada"
    assert got[1][0] == "RESOURCE_EXHAUSTED"
    expected = [("remote_address", "127.0.0.1"), ("path", "/shop.Shop/Put"), ("x-user", "ada")]
    assert seen[0] == ("shops", 3, expected)
    assert len(seen) == 2  # what is refused so is not tried again


def test_local_rate_limit(upstream: Upstream, proto: str, tmp_path: Path) -> None:
    """What is more than the limit is RESOURCE_EXHAUSTED, and no server is bothered."""
    limit = ("--local-rate-limit", "1", "--local-rate-limit-burst", "5")
    with (
        proxied(tmp_path, proto, "--upstream", upstream.address, *limit) as envoy,
        dynserve.connect(envoy.address, proto, timeout=SECONDS) as client,
    ):
        codes = []
        for _ in range(40):
            try:
                client.method("shop.Shop/Put")(name="a")
                codes.append("OK")
            except StatusError as error:
                codes.append(error.code().name)
        assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
        assert codes[:5] == ["OK"] * 5
        assert envoy.statistic("cluster.servers.upstream_rq_total") == codes.count("OK")


# ---- servers that come and go


def test_calls_are_spread(plugin: Path, proto: str, tmp_path: Path) -> None:
    """One after the other, where that is asked for."""
    envoy_binary()
    with Upstream.running(plugin) as one, Upstream.running(plugin) as other:
        words = ["--upstream", one.address, "--upstream", other.address]
        with (
            proxied(tmp_path, *words, "--balance", "round-robin") as envoy,
            dynserve.connect(envoy.address, proto, timeout=SECONDS) as client,
        ):
            served = [client.method("shop.Shop/Get")(name="a").count for _ in range(20)]
        pids = (one.process.pid, other.process.pid)
    assert {served.count(pid) >= 8 for pid in pids} == {True}  # each worker has a turn of its own


def test_a_dead_server_is_left_out(plugin: Path, proto: str, tmp_path: Path) -> None:
    """Killed, and believed to be healthy still: calls go on, and soon none of them tries it."""
    envoy_binary()
    with Upstream.running(plugin) as one, Upstream.running(plugin) as other:
        words = ["--upstream", one.address, "--upstream", other.address]
        words += ["--health-interval", "60", "--balance", "round-robin"]
        with (
            proxied(tmp_path, *words) as envoy,
            dynserve.connect(envoy.address, proto, timeout=SECONDS) as client,
        ):
            envoy.wait_for({one.address: set(), other.address: set()})
            one.process.kill()
            one.process.wait(SECONDS)
            served = [client.method("shop.Shop/Get")(name="a").count for _ in range(100)]
            assert set(served) == {other.process.pid}
            assert envoy.hosts() == {one.address: {"failed_outlier_check"}, other.address: set()}


def test_no_client_can_have_a_server_left_out(
    upstream: Upstream, proto: str, tmp_path: Path
) -> None:
    """Calls that fail for what was asked say nothing of the server."""
    words = ("--upstream", upstream.address, "--eject-percent", "100", "--retries", "0")
    with (
        proxied(tmp_path, *words) as envoy,
        grpc.insecure_channel(envoy.address) as channel,
    ):
        unknown: Any = channel.unary_unary("/shop.Shop/None")
        broken: Any = channel.unary_unary("/shop.Shop/Put")
        for _ in range(20):
            for call, request in ((unknown, b""), (broken, b"\xff")):
                with pytest.raises(grpc.RpcError):
                    call(request, timeout=SECONDS)
        assert envoy.hosts() == {upstream.address: set()}
        assert outcome(envoy.address, proto, "Put", {"name": "a"}).name == "a"


@contextmanager
def switched() -> Iterator[str]:
    """The address of a server whose health a call changes."""
    source = (
        'syntax = "proto3"; package shop; message Item { string name = 1; int32 count = 2; }'
        " service Shop { rpc Get(Item) returns (Item); rpc Put(Item) returns (Item); }"
    )
    app = App(source)
    server = app.server("127.0.0.1:0")
    served = 0

    @app.rpc("shop.Shop/Get")
    async def get(item: Any) -> dict[str, int]:
        nonlocal served
        served += 1
        return {"count": served}

    @app.rpc("shop.Shop/Put")
    async def put(item: Any) -> Any:
        await server.set_health("", item.name == "up")
        return item

    server = app.server("127.0.0.1:0")
    with server.in_thread(grace=None):
        yield server.addresses[0]


def test_a_server_that_does_not_serve_gets_no_calls(
    upstream: Upstream, proto: str, tmp_path: Path
) -> None:
    """NOT_SERVING counts at once, with no failed check before it, and SERVING after it."""
    with switched() as address:
        words = ["--upstream", upstream.address, "--upstream", address]
        words += ["--health-failures", "1000", "--health-interval", "0.1"]
        with (
            proxied(tmp_path, *words) as envoy,
            dynserve.connect(envoy.address, proto, timeout=SECONDS) as client,
            dynserve.connect(address, proto, timeout=SECONDS) as direct,
        ):
            get = client.method("shop.Shop/Get")
            envoy.wait_for({upstream.address: set(), address: set()})
            until(lambda: get(name="a").count != upstream.process.pid, "both get calls")
            direct.method("shop.Shop/Put")(name="down")
            down = {"failed_active_health_check"}
            envoy.wait_for({upstream.address: set(), address: down})
            before = direct.method("shop.Shop/Get")(name="a").count
            assert {get(name="a").count for _ in range(50)} == {upstream.process.pid}
            assert direct.method("shop.Shop/Get")(name="a").count == before + 1
            direct.method("shop.Shop/Put")(name="up")
            envoy.wait_for({upstream.address: set(), address: set()})
            until(lambda: get(name="a").count == before + 2, "it gets calls again")


def test_nobody_serves(proto: str, tmp_path: Path) -> None:
    """Without a healthy server a call is UNAVAILABLE at once."""
    with proxied(tmp_path, "--upstream", "127.0.0.1:1") as envoy:
        envoy.wait_for({"127.0.0.1:1": {"failed_active_health_check"}})
        got = outcome(envoy.address, proto, "Put", {"name": "a"})
    assert got == ("UNAVAILABLE", "no healthy upstream")


def test_a_breaker(upstream: Upstream, proto: str, tmp_path: Path) -> None:
    """What is more than may be under way is refused at once, and taken when there is room."""
    words = ("--upstream", upstream.address, "--max-requests", "1", "--retries", "0")
    with (
        proxied(tmp_path, *words) as envoy,
        dynserve.connect(envoy.address, proto, timeout=SECONDS) as client,
    ):
        waiting = client.method("shop.Shop/Wait")(name="a")
        assert next(waiting).name == "a"
        code, text = outcome(envoy.address, proto, "Put", {"name": "b"})
        assert (code, "overflow" in text) == ("UNAVAILABLE", True), text
        waiting.cancel()
        until(
            lambda: not isinstance(outcome(envoy.address, proto, "Put", {"name": "b"}), tuple),
            "there is room",
        )


def test_what_is_retried(proto: str, tmp_path: Path) -> None:
    """What a server that stops answers is tried again, on another; other statuses are not."""
    calls: list[tuple[int, str]] = []
    source = Path(proto).read_text()

    def failing(number: int) -> Any:
        def put(item: Any) -> Any:
            calls.append((number, item.name))
            raise StatusError(grpc.StatusCode[item.name], "as asked")

        return put

    with (
        serving(source, "shop.Shop/Put", failing(1)) as one,
        serving(source, "shop.Shop/Put", failing(2)) as other,
        proxied(tmp_path, "--upstream", one, "--upstream", other, "--retries", "1") as envoy,
    ):
        got = [
            outcome(envoy.address, proto, "Put", {"name": name})
            for name in ("UNAVAILABLE", "CANCELLED", "ABORTED")
        ]
    assert got == [(name, "as asked") for name in ("UNAVAILABLE", "CANCELLED", "ABORTED")]
    assert [name for _, name in calls] == [*["UNAVAILABLE"] * 2, *["CANCELLED"] * 2, "ABORTED"]
    for name in ("UNAVAILABLE", "CANCELLED"):
        assert {number for number, other in calls if other == name} == {1, 2}


def test_a_server_may_limit_the_streams_of_a_connection(proto: str, tmp_path: Path) -> None:
    """Envoy has one connection for many clients, and makes more where a server limits them."""
    app = App(Path(proto).read_text())

    @app.rpc("shop.Shop/Wait")
    async def wait(item: Any) -> AsyncIterator[Any]:
        yield item
        await asyncio.Event().wait()

    with (
        app.server("127.0.0.1:0", max_concurrent_streams=2).in_thread(grace=None) as server,
        proxied(tmp_path, "--upstream", server.addresses[0]) as envoy,
        dynserve.connect(envoy.address, proto, timeout=SECONDS) as client,
        contextlib.ExitStack() as opened,
    ):
        for number in range(20):
            call = client.method("shop.Shop/Wait")(count=number)
            opened.callback(call.cancel)
            assert next(call).count == number
        assert envoy.statistic("cluster.servers.upstream_cx_total") >= 20 / 2


# ---- time


def test_a_stream_lasts_as_long_as_it_likes(proxy: Envoy, proto: str) -> None:
    """There is no limit but the client's own, which ends it; the server is told of it."""
    assert 0 < float(outcome(proxy.address, proto, "Get", {"name": "time"}, timeout=9).name) <= 9
    with dynserve.connect(proxy.address, proto) as client:
        call = client.method("shop.Shop/Wait")({"name": "a"}, timeout=1.0)
        assert next(call).name == "a"
        with pytest.raises(StatusError) as caught:
            next(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("timeout", [None, SECONDS])
def test_the_longest_deadline(
    timeout: float | None, upstream: Upstream, proto: str, tmp_path: Path
) -> None:
    """Who sets no deadline, or a longer one, gets the longest that is allowed."""
    words = ("--upstream", upstream.address, "--max-timeout", "0.5")
    with (
        proxied(tmp_path, *words) as envoy,
        dynserve.connect(envoy.address, proto) as client,
    ):
        call = client.method("shop.Shop/Wait")({"name": "a"}, timeout=timeout)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            ended = pool.submit(list, call)
            error = ended.exception(SECONDS / 2)
    assert isinstance(error, StatusError)
    # Envoy can only reset what has begun; on a busy machine it has not.
    assert error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED)


# ---- the rest


def test_tls_on_both_sides(
    proto: str, names: dict[str, str], authorities: list[Authority], tmp_path: Path
) -> None:
    """Clients show a certificate to Envoy and Envoy one to servers; who shows none is refused."""
    key, cert = (Path(names[name]).read_bytes() for name in ("key", "cert"))
    root = authorities[0].root
    credentials = grpc.ssl_server_credentials([(key, cert)], root, require_client_auth=True)
    app = App(Path(proto).read_text())
    app.service("shop.Shop").add(lambda item: item, "Put")
    tls = ["--tls-cert", names["cert"], "--tls-key", names["key"], "--tls-client-ca", names["ca"]]
    tls += ["--upstream-ca", names["ca"], "--upstream-name", "shop.example"]
    tls += ["--upstream-cert", names["cert"], "--upstream-key", names["key"]]
    with app.server("127.0.0.1:0", credentials=credentials).in_thread(grace=None) as server:
        (address,) = server.addresses
        with proxied(tmp_path, proto, "--upstream", address, *tls) as envoy:
            envoy.wait_for({address: set()})
            shown = dynserve.TLS(root, cert, key, "shop.example")
            with dynserve.connect(envoy.address, proto, tls=shown, timeout=SECONDS) as client:
                assert client.method("shop.Shop/Put")(name="a").name == "a"
            none = dynserve.TLS(root, server_name="shop.example")
            with (
                dynserve.connect(envoy.address, proto, tls=none, timeout=SECONDS) as client,
                pytest.raises(StatusError) as caught,
            ):
                client.method("shop.Shop/Put")(name="a")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_server_of_another_name_is_not_trusted(
    proto: str, names: dict[str, str], tmp_path: Path
) -> None:
    """A certificate of the right authority with the wrong name makes a server unhealthy."""
    key, cert = (Path(names[name]).read_bytes() for name in ("key", "cert"))
    app = App(Path(proto).read_text())
    app.service("shop.Shop").add(lambda item: item, "Put")
    credentials = grpc.ssl_server_credentials([(key, cert)])
    with app.server("127.0.0.1:0", credentials=credentials).in_thread(grace=None) as server:
        (address,) = server.addresses
        words = ("--upstream-ca", names["ca"], "--upstream-name", "other.example")
        with proxied(tmp_path, "--upstream", address, *words) as envoy:
            envoy.wait_for({address: {"failed_active_health_check"}})


def test_a_name_stands_for_its_addresses(upstream: Upstream, proto: str, tmp_path: Path) -> None:
    """DNS is asked, here for this machine."""
    _, _, port = upstream.address.rpartition(":")
    with proxied(tmp_path, "--upstream", f"localhost:{port}") as envoy:
        envoy.wait_for({f"127.0.0.1:{port}": set()})
        assert outcome(envoy.address, proto, "Put", {"name": "a"}).name == "a"


def test_the_access_log(upstream: Upstream, proto: str, tmp_path: Path) -> None:
    """A line of JSON a call has what an operator asks for."""
    with proxied(tmp_path, proto, "--upstream", upstream.address) as envoy:
        outcome(envoy.address, proto, "Get", {"name": "none"})
        fetched(envoy.address, "/v1/items/tea")
        log = envoy.log
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    shown = [
        {name: line[name] for name in ("method", "path", "grpc_status", "upstream", "attempts")}
        for line in lines
    ]
    common = {"attempts": 1, "upstream": upstream.address}
    assert shown == [
        {"method": "POST", "path": "/shop.Shop/Get", "grpc_status": "NotFound", **common},
        {"method": "GET", "path": "/v1/items/tea", "grpc_status": "OK", **common},
    ]
    assert all(line["request_id"] and line["milliseconds"] >= 0 for line in lines)


def test_the_binary_is_envoy() -> None:
    """What these tests run is Envoy's own program."""
    assert os.access(envoy_binary(), os.X_OK)
