"""Ports, start, stop, replacement of what is served."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dynserve import AddressError, App, Kind, SettingError, UnhandledMethodsError
from dynserve.engines import engine_maker, new_event_loop
from tests.echo import ECHO, PATHS, Item, app_with, schema

pytestmark = pytest.mark.usefixtures("engine")

WAIT = 20.0
UNARY = f"/{PATHS[Kind.UNARY_UNARY]}"


def echo() -> App:
    return app_with(lambda request: request, Kind.UNARY_UNARY)


def call(address: str, request: bytes = b"", **options: Any) -> Any:
    options.setdefault("timeout", WAIT)
    with grpc.insecure_channel(address) as channel:
        method: Any = channel.unary_unary(UNARY)
        return method(request, **options)


@pytest.mark.parametrize("asked", ["127.0.0.1:0", "localhost:0", "[::1]:0", "0.0.0.0:0"])
def test_port_0_is_reported(asked: str) -> None:
    """The system chooses the port, and the address says which."""
    with echo().server(asked).in_thread() as server:
        [address] = server.addresses
        host, _, port = address.rpartition(":")
        assert (host, port != "0") == (asked.rpartition(":")[0], True)
        assert call(address.replace("0.0.0.0", "127.0.0.1")) == b""


def test_listens_on_several_addresses(tmp_path: Path) -> None:
    """TCP ports and unix sockets at the same time."""
    path = f"unix:{tmp_path}/socket"
    with echo().server("127.0.0.1:0", path, "127.0.0.1:0").in_thread() as server:
        assert len(server.addresses) == 3
        assert server.addresses[1] == path
        assert [call(address, b"\x08\x01") for address in server.addresses] == [b"\x08\x01"] * 3


def test_a_port_in_use_is_named() -> None:
    """Another server's port is an error, not shared with it."""
    with echo().server("127.0.0.1:0").in_thread() as server:
        [address] = server.addresses
        port = address.rpartition(":")[2]
        with pytest.raises(AddressError) as caught, echo().server(address).in_thread():
            pass
        assert str(caught.value) == (
            f"cannot listen on {address}: port {port} is taken; port 0 lets the system choose"
        )
        assert call(address) == b""


def test_a_socket_in_use_is_named(tmp_path: Path) -> None:
    """A unix socket that a server listens on is not taken from it."""
    address = f"unix:{tmp_path}/socket"
    with echo().server(address).in_thread():
        with pytest.raises(AddressError) as caught, echo().server(address).in_thread():
            pass
        assert str(caught.value) == f"cannot listen on {address}: another process listens on it"
        assert call(address) == b""


def test_a_stale_socket_is_taken_over(tmp_path: Path) -> None:
    """What a dead server left behind does not stop the next one."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/socket")
    with echo().server(f"unix:{tmp_path}/socket").in_thread() as server:
        assert call(server.addresses[0]) == b""


def test_one_bad_address_of_several_leaves_none_open() -> None:
    """A server that cannot have all its addresses listens on none."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(AddressError), echo().server(free, "nonsense").in_thread():
        pass
    with echo().server(free).in_thread() as server:
        assert call(server.addresses[0]) == b""


def test_tls_credentials_are_used(tmp_path: Path) -> None:
    """With credentials the port speaks TLS and nothing else."""
    make = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
    )
    subprocess.run(shlex.split(make), cwd=tmp_path, check=True, capture_output=True)
    key, certificate = (tmp_path / "key.pem").read_bytes(), (tmp_path / "cert.pem").read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    with echo().server("localhost:0", credentials=credentials).in_thread() as server:
        [address] = server.addresses
        trusted = grpc.ssl_channel_credentials(certificate)
        with grpc.secure_channel(address, trusted) as channel:
            method: Any = channel.unary_unary(UNARY)
            assert method(b"", timeout=WAIT) == b""
        with pytest.raises(grpc.RpcError) as caught:
            call(address, timeout=3)
        assert caught.value.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )


def test_strict_refuses_holes() -> None:
    """A declared method without a handler keeps a strict server from starting."""
    with pytest.raises(UnhandledMethodsError) as caught:
        echo().server(strict=True)
    assert str(caught.value) == (
        "3 methods have no handler (strict):\n  echo.Echo/Down\n  echo.Echo/Up\n  echo.Echo/Chat"
    )


def test_strict_takes_a_whole_service() -> None:
    """With a fallback nothing is missing."""
    app = echo()
    app.fallback(lambda request: [])
    assert app.server(strict=True).routes.holes == []


def test_a_server_starts_once() -> None:
    """Starting a second time is an error, not a second set of ports."""

    async def main() -> None:
        async with echo().server("127.0.0.1:0") as server:
            with pytest.raises(RuntimeError, match="a server starts once"):
                await server.start()

    asyncio.run(main())


def test_a_server_that_could_not_start_may_try_again() -> None:
    """Whatever kept it from starting, nothing of it is left open."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"

    async def main() -> Any:
        server = App(schema=schema).server(free)
        with pytest.raises(ValueError, match="bad option"):
            await _started_with(server, ValueError("bad option"))
        await server.start()
        await server.stop(None)
        return server.addresses

    assert asyncio.run(main()) == (free,)


async def _started_with(server: Any, error: Exception) -> None:
    def fail(*_: object) -> int:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_maker(os.environ["DYNSERVE_ENGINE"]), "add_port", fail)
        await server.start()


@pytest.mark.parametrize("name", ["threads", "stream_threads", "maximum_concurrent_rpcs"])
@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(name: str, limit: int) -> None:
    """A server that could serve nothing is not made; the error names the argument."""
    with pytest.raises(SettingError) as caught:
        echo().server(**{name: limit})  # type: ignore[arg-type]
    assert str(caught.value) == f"got {name}={limit}, expected a whole number, at least 1"


def test_who_waits_for_the_end_may_be_cancelled() -> None:
    """The server goes on, and can be stopped."""

    async def main() -> bytes:
        async with echo().server("127.0.0.1:0") as server:
            waiting = asyncio.ensure_future(server.wait_for_termination())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            result: bytes = await asyncio.to_thread(call, server.addresses[0])
        await server.wait_for_termination()
        return result

    assert asyncio.run(main()) == b""


def test_run_ends_when_somebody_stops_the_server() -> None:
    """``stop()`` from elsewhere in the program ends ``run()`` as a signal does."""

    async def main() -> None:
        server = echo().server("127.0.0.1:0")
        await server.run(ready=lambda: asyncio.ensure_future(server.stop()))

    before = signal.getsignal(signal.SIGTERM)
    asyncio.run(asyncio.wait_for(main(), WAIT))
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of threads are POSIX")
@pytest.mark.parametrize("own", [True, False])
def test_a_signal_that_does_not_interrupt_the_loop_wakes_it(own: bool) -> None:
    """One that comes as the loop falls asleep, or on another thread, is noted and no more."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        asleep = threading.Event()

        def signal_here() -> None:
            asleep.wait(WAIT)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

        thread = threading.Thread(target=signal_here)
        server = echo().server("127.0.0.1:0")

        def ready() -> None:
            thread.start()
            loop.call_soon(loop.call_soon, asleep.set)  # in the turn before nothing is to be done

        await server.run(ready)
        thread.join()

    loop = new_event_loop("queue") if own else asyncio.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(main(), WAIT))
    finally:
        loop.close()
    assert signal.set_wakeup_fd(-1) == -1


def test_a_stop_that_takes_a_while_is_told() -> None:
    """Once, where calls are under way; not where there is none."""

    async def main(busy: bool) -> int:
        told, entered = asyncio.Event(), asyncio.Event()
        times = []

        async def unary(_request: Any) -> Any:
            entered.set()
            await told.wait()
            return None

        def waiting() -> None:
            times.append(1)
            told.set()

        app = app_with(unary, Kind.UNARY_UNARY)
        server = app.server("127.0.0.1:0")
        calling: list[asyncio.Task[Any]] = []

        async def stop() -> None:
            if busy:
                channel = grpc.aio.insecure_channel(server.addresses[0])
                method: Any = channel.unary_unary(UNARY)
                calling.append(asyncio.ensure_future(method(b"", timeout=WAIT)))
                await entered.wait()
            os.kill(os.getpid(), signal.SIGTERM)

        await server.run(lambda: asyncio.ensure_future(stop()), waiting)
        await asyncio.gather(*calling, return_exceptions=True)
        return len(times)

    assert [asyncio.run(main(busy)) for busy in (False, True)] == [0, 1]


def test_run_forever_is_refused_where_a_loop_runs() -> None:
    """With what to do instead."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"await Server\.run"):
            echo().server("127.0.0.1:0").run_forever()

    asyncio.run(main())


def test_in_thread_ends_as_asyncio_run_does() -> None:
    """Tasks are cancelled, what they raise then is reported, threads of the loop are joined."""
    told: list[Any] = []
    threads: list[threading.Thread] = []

    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("late")

    async def handler(request: Any) -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(repr(context["exception"])))
        tasks.append(asyncio.ensure_future(fail_when_cancelled()))
        await loop.run_in_executor(None, lambda: threads.append(threading.current_thread()))
        return request

    tasks: list[Any] = []
    with app_with(handler, Kind.UNARY_UNARY).server("127.0.0.1:0").in_thread() as server:
        call(server.addresses[0])
    assert told == ["ValueError('late')"]
    assert [thread.is_alive() for thread in threads] == [False]


def test_stopping_what_was_not_started_is_nothing() -> None:
    """stop() and wait_for_termination() of a fresh server return at once."""

    async def main() -> None:
        server = echo().server("127.0.0.1:0")
        await server.stop()
        await server.wait_for_termination()
        assert server.addresses == ()

    asyncio.run(main())


class Gate:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.entered, self.release = threading.Event(), threading.Event()

    def __call__(self, request: Any) -> Any:
        self.entered.set()
        self.release.wait(WAIT)
        return request


def test_stop_lets_calls_finish() -> None:
    """A call under way when the server stops gets its answer within the grace time."""
    gate = Gate()

    async def main() -> bytes:
        async with app_with(gate, Kind.UNARY_UNARY).server("127.0.0.1:0") as server:
            answer = asyncio.ensure_future(asyncio.to_thread(call, server.addresses[0], b""))
            await asyncio.to_thread(gate.entered.wait, WAIT)
            stopping = asyncio.ensure_future(server.stop(WAIT))
            with pytest.raises(grpc.RpcError):
                await asyncio.to_thread(call, server.addresses[0], timeout=2)
            gate.release.set()
            await stopping
            await server.wait_for_termination()
            result: bytes = await answer
            return result

    assert asyncio.run(main()) == b""


def test_stop_cancels_what_does_not_finish() -> None:
    """Past the grace time calls are cancelled, and a second stop shortens it."""
    gate = Gate()

    async def main() -> grpc.RpcError:
        async with app_with(gate, Kind.UNARY_UNARY).server("127.0.0.1:0") as server:
            answer = asyncio.ensure_future(asyncio.to_thread(call, server.addresses[0], b""))
            await asyncio.to_thread(gate.entered.wait, WAIT)
            patient = asyncio.ensure_future(server.stop(1000))
            await server.stop(None)
            await patient
            with pytest.raises(grpc.RpcError) as caught:
                await answer
            return caught.value

    error: Any = asyncio.run(asyncio.wait_for(main(), WAIT))
    gate.release.set()
    assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_replace_serves_new_calls_and_leaves_old_ones() -> None:
    """A call under way keeps its handler and schema; the next one gets the new."""
    gate = Gate()
    renamed = ECHO.replace("rpc Down", "rpc Renamed")
    new = App(renamed)

    @new.rpc("echo.Echo/Unary")
    def unary(request: Any) -> Any:
        return {"text": "new"}

    @new.rpc("echo.Echo/Renamed")
    def other(request: Any) -> Iterator[Any]:
        yield {"text": "renamed"}

    async def main() -> tuple[bytes, bytes, list[str]]:
        async with app_with(gate, Kind.UNARY_UNARY).server("127.0.0.1:0") as server:
            address = server.addresses[0]
            old = asyncio.ensure_future(asyncio.to_thread(call, address, b"\x08\x07"))
            await asyncio.to_thread(gate.entered.wait, WAIT)
            await server.replace(new)
            fresh = await asyncio.to_thread(call, address, b"\x08\x07")
            gate.release.set()
            return await old, fresh, server.routes.holes

    old, fresh, holes = asyncio.run(main())
    assert old == Item(number=7).SerializeToString()
    assert fresh == Item(text="new").SerializeToString()
    assert holes == ["echo.Echo/Up", "echo.Echo/Chat"]


def test_a_replacement_that_does_not_fit_changes_nothing() -> None:
    """replace() raises, and the server goes on with what it had."""

    async def main() -> bytes:
        async with echo().server("127.0.0.1:0", strict=False) as server:
            broken = App(schema=schema)
            broken.add(lambda request: request, "echo.Echo/Nothing")
            with pytest.raises(Exception, match="no method 'Nothing' in service"):
                await server.replace(broken)
            result: bytes = await asyncio.to_thread(call, server.addresses[0])
            return result

    assert asyncio.run(main()) == b""


PROGRAM = f"""
import sys, threading
from dynserve import App
app = App({ECHO!r})
entered = threading.Event()
@app.rpc("echo.Echo/Unary")
def unary(request):
    print("entered", flush=True)
    sys.stdin.readline()
    return request
server = app.server("127.0.0.1:0", grace=1000)
import asyncio
asyncio.run(server.run(lambda: print(server.addresses[0], flush=True)))
print("stopped", flush=True)
"""


def _refuses(address: str) -> bool:
    with socket.socket() as probe:
        host, _, port = address.rpartition(":")
        return probe.connect_ex((host, int(port))) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("patient", [True, False])
def test_signals_stop_a_server(number: int, patient: bool) -> None:
    """One signal waits for calls under way; a second one does not."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        result: list[Any] = []

        def client() -> None:
            try:
                result.append(call(address, b"\x08\x01"))
            except grpc.RpcError as error:
                result.append(error)

        calling = threading.Thread(target=client)
        calling.start()
        assert process.stdout.readline() == "entered\n"
        process.send_signal(number)
        if patient:
            process.stdin.write("\n")
            process.stdin.flush()
        else:
            while not _refuses(address):  # until it has begun to stop
                pass
            process.send_signal(number)
        assert process.stdout.readline() == "stopped\n"
        process.stdin.close()
        assert process.wait(WAIT) == 0
        calling.join(WAIT)
    assert (result == [b"\x08\x01"]) is patient


BLOCKED = PROGRAM.replace("def unary", "async def unary").replace("1000,", "0,")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_third_signal_ends_a_process_whose_loop_is_blocked(number: int) -> None:
    """However a handler keeps the loop from running, whoever signals three times is heard."""
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            BLOCKED.replace("sys.stdin.readline()", "__import__('time').sleep(60)"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with grpc.insecure_channel(address) as channel:
            method: Any = channel.unary_unary(UNARY)
            calling = method.future(b"", timeout=WAIT)
            assert process.stdout.readline() == "entered\n"
            while process.poll() is None:  # signals that come too fast are one
                process.send_signal(number)
                time.sleep(0.01)
            calling.cancel()
        assert process.wait(WAIT) == 128 + number


def test_an_address_is_a_text() -> None:
    """A number alone would be taken for an address by nobody."""
    with pytest.raises(TypeError) as caught:
        App('syntax = "proto3";').server(50051)  # type: ignore[arg-type]
    assert str(caught.value) == "got 50051 to listen on, expected a str such as '127.0.0.1:50051'"
