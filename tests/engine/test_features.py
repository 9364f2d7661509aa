"""What a server is asked to be by its credentials, addresses and options: on both engines."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # for what channelz knows

from dynserve.engine.limits import CallLimits
from dynserve.engines import engine_maker
from tests.authority import Authority
from tests.engine.test_engines import WAIT, Channel, generic, on_loop

pytestmark = pytest.mark.usefixtures("engine")

unary = grpc.unary_unary_rpc_method_handler
down = grpc.unary_stream_rpc_method_handler
chat = grpc.stream_stream_rpc_method_handler
# A connection of its own for each channel, not the one that an earlier channel left open.
APART = ("grpc.use_local_subchannel_pool", 1)


def serve(
    handlers: grpc.GenericRpcHandler,
    client: Callable[[list[int]], Any],
    addresses: Sequence[str] = ("127.0.0.1:0",),
    credentials: grpc.ServerCredentials | None = None,
    **options: Any,
) -> Any:
    """Listen on the addresses and run the client, which gets their ports, on a thread."""

    async def main() -> Any:
        engine = engine_maker(os.environ["DYNSERVE_ENGINE"])([handlers], **options)
        ports = [engine.add_port(address, credentials) for address in addresses]
        await engine.start()
        try:
            return await asyncio.to_thread(client, ports)
        finally:
            await engine.stop(0)

    return on_loop(asyncio.wait_for(main(), WAIT * 2))


def plain(port: int) -> Channel:
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=[APART])


def echo(request: bytes, context: Any) -> bytes:
    return request


async def async_echo(request: bytes, context: Any) -> bytes:
    return request


# ---- security


def who(request: bytes, context: Any) -> bytes:
    security = context.auth_context()
    told = {
        "identities": [one.decode() for one in context.peer_identities() or ()],
        "key": context.peer_identity_key(),
        "type": security["transport_security_type"][0].decode(),
        "name": security.get("x509_common_name", [b""])[0].decode(),
    }
    return json.dumps(told).encode()


async def async_who(request: bytes, context: Any) -> bytes:
    return who(request, context)


@pytest.mark.parametrize("behaviour", [who, async_who])
def test_mutual_tls_tells_who_calls(behaviour: Any, authorities: list[Authority]) -> None:
    """The handler learns the client's identity; who has no certificate does not get through."""
    authority, other = authorities
    server = grpc.ssl_server_credentials(
        [authority.issue("localhost")], root_certificates=authority.root, require_client_auth=True
    )

    def client(ports: list[int]) -> Any:
        def call(credentials: grpc.ChannelCredentials) -> bytes:
            target = f"localhost:{ports[0]}"
            with grpc.secure_channel(target, credentials, options=[APART]) as channel:
                method: Any = channel.unary_unary("/a.B/Who")
                answer: bytes = method(b"", timeout=WAIT)
                return answer

        key, certificate = authority.issue("somebody")
        answer = call(grpc.ssl_channel_credentials(authority.root, key, certificate))
        for key, certificate in ((None, None), other.issue("nobody")):  # type: ignore[assignment]
            with pytest.raises(grpc.RpcError) as caught:
                call(grpc.ssl_channel_credentials(authority.root, key, certificate))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        return json.loads(answer)

    assert serve(generic(Who=unary(behaviour)), client, ["localhost:0"], server) == {
        "identities": ["somebody"],
        "key": "x509_subject_alternative_name",
        "type": "ssl",
        "name": "somebody",
    }


def test_certificates_that_change_while_it_serves(authorities: list[Authority]) -> None:
    """Each new connection is asked about; one that was made before goes on."""
    first, second = authorities
    configurations = [
        grpc.ssl_server_certificate_configuration([one.issue("localhost")]) for one in authorities
    ]
    present = [configurations[0]]
    server = grpc.dynamic_ssl_server_credentials(configurations[0], lambda: present[0])

    def client(ports: list[int]) -> Any:
        def channel(authority: Authority) -> Channel:
            credentials = grpc.ssl_channel_credentials(authority.root)
            return grpc.secure_channel(f"localhost:{ports[0]}", credentials, options=[APART])

        with channel(first) as before, channel(second) as after, channel(first) as late:
            answers = [before.unary_unary("/a.B/One")(b"1", timeout=WAIT)]
            present[0] = configurations[1]
            answers.append(after.unary_unary("/a.B/One")(b"2", timeout=WAIT))
            answers.append(before.unary_unary("/a.B/One")(b"3", timeout=WAIT))
            with pytest.raises(grpc.RpcError) as caught:
                late.unary_unary("/a.B/One")(b"4", timeout=WAIT)
        return answers, caught.value.code()

    assert serve(generic(One=unary(echo)), client, ["localhost:0"], server) == (
        [b"1", b"2", b"3"],
        grpc.StatusCode.UNAVAILABLE,
    )


def test_several_addresses_of_several_kinds(tmp_path: Path) -> None:
    """TCP ports and a unix socket serve the same handlers; the socket file goes at the end."""
    path = tmp_path / "socket"

    def peer(request: bytes, context: Any) -> bytes:
        return str(context.peer()).encode().partition(b":")[0]

    def client(ports: list[int]) -> list[bytes]:
        targets = [*(f"127.0.0.1:{port}" for port in ports[:2]), f"unix:{path}"]
        answers = []
        for target in targets:
            with grpc.insecure_channel(target, options=[APART]) as channel:
                method: Any = channel.unary_unary("/a.B/Peer")
                answers.append(method(b"", timeout=WAIT))
        return answers

    addresses = ["127.0.0.1:0", "127.0.0.1:0", f"unix:{path}"]
    assert serve(generic(Peer=unary(peer)), client, addresses) == [b"ipv4", b"ipv4", b"unix"]
    assert not path.exists()


# ---- options of the core


def test_channelz_counts_the_calls_of_a_server() -> None:
    """With the option on, the process can be asked for its servers and what they did."""

    def succeeded() -> list[int]:
        known = json.loads(cygrpc.channelz_get_servers(0))
        return [int(one["data"].get("callsSucceeded", 0)) for one in known.get("server", [])]

    def client(ports: list[int]) -> Any:
        with plain(ports[0]) as channel:
            for _ in range(7):
                channel.unary_unary("/a.B/One")(b"", timeout=WAIT)
        deadline = time.monotonic() + WAIT
        while 7 not in succeeded():  # a call is counted a moment after its client has the answer
            assert time.monotonic() < deadline
        return succeeded()

    assert 7 in serve(generic(One=unary(echo)), client, options=[("grpc.enable_channelz", 1)])


class Meter:
    """Stands between a client and a server, and counts what the server sends."""

    def __init__(self, port: int) -> None:
        self.received = 0
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with (
            self._listener,
            self._listener.accept()[0] as near,
            socket.create_connection(("127.0.0.1", self._server_port)) as far,
        ):
            up = threading.Thread(target=self._copy, args=(near, far, 0), daemon=True)
            up.start()
            self._copy(far, near, 1)
            up.join(WAIT)

    def close(self) -> None:
        """The client has gone: so have all that it was sent."""
        self._thread.join(WAIT)

    def _copy(self, source: socket.socket, target: socket.socket, counts: int) -> None:
        with contextlib.suppress(OSError):  # one side is gone
            while data := source.recv(1 << 16):
                self.received += len(data) * counts
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


_SIZE = 100_000


def large(request: bytes, context: Any) -> bytes:
    if b"gzip" in request:
        context.set_compression(grpc.Compression.Gzip)
    if b"none" in request:
        context.set_compression(grpc.Compression.NoCompression)
    if b"skip" in request:
        context.disable_next_message_compression()
    return bytes(_SIZE)


async def async_large(request: bytes, context: Any) -> bytes:
    return large(request, context)


@pytest.mark.parametrize("behaviour", [large, async_large])
@pytest.mark.parametrize(
    ("default", "request_", "is_small"),
    [
        (None, b"", False),
        (None, b"gzip", True),
        (None, b"gzip skip", False),
        (grpc.Compression.Gzip, b"", True),
        (grpc.Compression.Deflate, b"gzip", True),
        (grpc.Compression.Gzip, b"skip", False),
        (grpc.Compression.Gzip, b"none", False),
    ],
)
def test_compression(behaviour: Any, default: Any, request_: bytes, is_small: bool) -> None:
    """By the server, the call, the message: what comes over the wire is small, or is not."""

    def client(ports: list[int]) -> int:
        meter = Meter(ports[0])
        with plain(meter.port) as channel:
            answer = channel.unary_unary("/a.B/Large")(request_, timeout=WAIT)
            assert answer == bytes(_SIZE)
        meter.close()
        return meter.received

    received = serve(generic(Large=unary(behaviour)), client, compression=default)
    assert (received < _SIZE // 10) == is_small


def test_one_message_of_a_stream_is_not_compressed() -> None:
    """disable_next_message_compression is for one message."""

    def items(request: bytes, context: Any) -> Iterator[bytes]:
        context.set_compression(grpc.Compression.Gzip)
        yield bytes(_SIZE)
        context.disable_next_message_compression()
        yield bytes(_SIZE)
        yield bytes(_SIZE)

    def client(ports: list[int]) -> int:
        meter = Meter(ports[0])
        with plain(meter.port) as channel:
            assert list(channel.unary_stream("/a.B/Down")(b"", timeout=WAIT)) == [bytes(_SIZE)] * 3
        meter.close()
        return meter.received

    assert _SIZE < serve(generic(Down=down(items)), client) < 1.5 * _SIZE


@pytest.mark.parametrize("behaviour", [echo, async_echo])
def test_limits_of_the_size_of_a_message(behaviour: Any) -> None:
    """A request, and a response, over its limit is RESOURCE_EXHAUSTED; the server goes on."""

    def client(ports: list[int]) -> Any:
        codes: list[Any] = []
        with plain(ports[0]) as channel:
            method = channel.unary_unary("/a.B/One")
            for size in (900, 1500, 900, 2500, 900):
                try:
                    codes.append(len(method(bytes(size), timeout=WAIT)))
                except grpc.RpcError as error:
                    codes.append(error.code())
        return codes

    limits = [("grpc.max_receive_message_length", 2000), ("grpc.max_send_message_length", 1000)]
    over = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert serve(generic(One=unary(behaviour)), client, options=limits) == [
        *(900, over, 900, over, 900)
    ]


def test_keepalive_ends_a_connection_that_does_not_answer() -> None:
    """The server pings, and closes where no answer comes."""

    def client(ports: list[int]) -> bytes:
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=WAIT) as peer:
            peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + acknowledgement)
            got = b""
            while data := peer.recv(1 << 16):
                got += data
        return got

    settings, acknowledgement = (
        bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
        bytes([0, 0, 0, 4, 1, 0, 0, 0, 0]),
    )
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_timeout_ms", 100),
        ("grpc.http2.ping_timeout_ms", 100),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    ping = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0])
    assert ping in serve(generic(One=unary(echo)), client, options=options)


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_connection_that_grows_old_loses_no_call(world: str) -> None:
    """With a largest age for connections calls go on, each answered, over one after the other."""

    async def async_chat(_: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message)

    def sync_chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    def peer(request: bytes, context: Any) -> bytes:
        return str(context.peer()).encode()

    def client(ports: list[int]) -> int:
        peers: set[bytes] = set()
        with plain(ports[0]) as channel:
            for number in itertools.count():
                stream = channel.stream_stream("/a.B/Chat")(iter([b"%d" % number]), timeout=WAIT)
                assert list(stream) == [b"%d" % number]
                peers.add(channel.unary_unary("/a.B/Peer")(b"", timeout=WAIT))
                if len(peers) == 3:
                    break
        return len(peers)

    handlers = generic(Chat=chat(sync_chat if world == "sync" else async_chat), Peer=unary(peer))
    options = [("grpc.max_connection_age_ms", 150), ("grpc.max_connection_age_grace_ms", 20_000)]
    assert serve(handlers, client, options=options) == 3


@pytest.mark.parametrize("world", ["sync", "async"])
def test_streams_past_the_limit_are_refused_and_leave_nothing_behind(world: str) -> None:
    """Calls that were refused, some cancelled at once, do not count against the limit."""

    async def async_chat(_: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await context.write(message)

    def sync_chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    def client(ports: list[int]) -> Any:
        release = threading.Event()

        def requests() -> Iterator[bytes]:
            yield b"x"
            release.wait(WAIT)

        with plain(ports[0]) as channel:
            method = channel.stream_stream("/a.B/Chat")
            first = method(requests(), timeout=WAIT)
            next(first)
            for number in range(300):
                refused = method(iter([b"x"]), timeout=WAIT)
                if number % 2:
                    refused.cancel()
                with pytest.raises(grpc.RpcError) as caught:
                    list(refused)
                expected = {grpc.StatusCode.RESOURCE_EXHAUSTED}
                assert caught.value.code() in expected | {grpc.StatusCode.CANCELLED}
            release.set()
            assert list(first) == []
            while True:  # a call is counted out a moment after its client has the status
                with contextlib.suppress(grpc.RpcError):
                    return list(method(iter([b"y"]), timeout=WAIT))

    handlers = generic(Chat=chat(sync_chat if world == "sync" else async_chat))
    assert serve(handlers, client, limits=CallLimits(1)) == [b"y"]
