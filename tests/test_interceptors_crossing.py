"""What reaches a handler through an interceptor of the other world: variables, context, streams."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from dynserve import Kind
from tests.conftest import Serve
from tests.echo import PATHS, Item
from tests.interceptors import (
    KINDS,
    Aio,
    Sync,
    app_of,
    handlers_of,
    outcome,
    stack,
)

WAIT = 20
every_world = pytest.mark.parametrize("world", ["sync", "async"])
every_stack = pytest.mark.parametrize("names", ["S", "A", "SA", "AS", "ASA"])

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="")


# ---- context variables


class SyncVar(Sync):
    """Sets a variable for the handler, and notes what the handler set."""

    def unary(self, inner: Any) -> Any:
        def behaviour(request: Any, context: Any) -> Any:
            seen.set(seen.get() + self.name)
            response = inner(request, context)
            self.log.append(seen.get())
            return response

        return behaviour


class AioVar(Aio):
    def unary(self, inner: Any) -> Any:
        async def behaviour(request: Any, context: Any) -> Any:
            seen.set(seen.get() + self.name)
            response = await inner(request, context)
            self.log.append(seen.get())
            return response

        return behaviour


@every_world
@every_stack
def test_context_variables_cross_over_and_back(serve: Serve, world: str, names: str) -> None:
    """What an interceptor sets the handler finds, and what the handler sets interceptors find."""
    log: list[str] = []
    kinds: dict[str, Any] = {"S": SyncVar, "A": AioVar}
    interceptors = [kinds[letter](log, letter) for letter in names]

    def var(request: Any, context: Any) -> Any:
        seen.set(seen.get() + "h")
        return {"text": seen.get()}

    with serve(app_of(handlers_of(world, var), interceptors)) as client:
        assert client.call(PATHS[Kind.UNARY_UNARY], Item()).text == f"{names}h"
        assert log == [f"{names}h"] * len(names)


# ---- the context


@every_world
@every_stack
def test_what_the_context_tells_and_takes(serve: Serve, world: str, names: str) -> None:
    """Everything a handler may ask and say goes through, whatever is in between."""
    told: list[Any] = []

    def ask(context: Any) -> Any:
        told.append(
            (
                context.method.name,
                dict(context.invocation_metadata())["x-request-id"],
                context.request_id,
                context.peer().partition(":")[0],
                context.time_remaining() > 0,
                context.identity,
                context.auth_context(),
                context.peer_identities(),
                context.peer_identity_key(),
            )
        )
        context.identity = "somebody"
        context.set_trailing_metadata([("trailing", "t")])
        context.set_code(grpc.StatusCode.ABORTED)
        context.set_details("told")
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        assert context.trailing_metadata() == (("trailing", "t"),)
        assert (context.code(), context.details()) == (grpc.StatusCode.ABORTED, "told")
        return {"number": 1}

    def unary(request: Any, context: Any) -> Any:
        context.send_initial_metadata([("initial", "i")])
        assert context.is_active()
        ask(context)
        raise LookupError

    async def unary_async(request: Any, context: Any) -> Any:
        await context.send_initial_metadata([("initial", "i")])
        assert (context.done(), context.cancelled()) == (False, False)
        ask(context)
        raise LookupError

    handler = unary if world == "sync" else unary_async
    app = app_of({Kind.UNARY_UNARY: handler}, stack(names, []))
    with serve(app) as client, pytest.raises(grpc.RpcError) as caught:
        client.call(PATHS[Kind.UNARY_UNARY], Item(), metadata=[("x-request-id", "id-1")])
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "told")
    assert dict(error.initial_metadata())["initial"] == "i"
    assert dict(error.trailing_metadata())["trailing"] == "t"
    auth = told[0][6]
    assert told == [("Unary", "id-1", "id-1", "ipv4", True, None, auth, None, None)]


_ServicerContext: Any = grpc.ServicerContext


class Wrapped(_ServicerContext):  # type: ignore[misc]
    """A context of an interceptor's own, as OpenTelemetry has: abort takes two arguments."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.codes: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def abort(self, code: Any, details: str) -> Any:
        self.codes.append(code)
        return self._context.abort(code, details)


for _name in Wrapped.__abstractmethods__:
    setattr(Wrapped, _name, (lambda name: lambda self, *a: getattr(self._context, name)(*a))(_name))
Wrapped.__abstractmethods__ = frozenset()


class WrappedAio:
    def __init__(self, context: Any) -> None:
        self._context = context
        self.codes: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def abort(self, code: Any, details: str) -> Any:
        self.codes.append(code)
        return await self._context.abort(code, details)


@every_world
@pytest.mark.parametrize("names", ["S", "A", "SA", "AS", "ASA", "SAS"])
def test_a_context_of_an_interceptors_own(serve: Serve, world: str, names: str) -> None:
    """Wrappers are asked, whatever the handler is; attributes set on them are found."""
    contexts: list[Any] = []

    class Wrap(Sync):
        def unary(self, inner: Any) -> Any:
            def behaviour(request: Any, context: Any) -> Any:
                contexts.append(Wrapped(context))
                contexts[-1].user = "ada"
                return inner(request, contexts[-1])

            return behaviour

    class WrapAio(Aio):
        def unary(self, inner: Any) -> Any:
            async def behaviour(request: Any, context: Any) -> Any:
                contexts.append(WrappedAio(context))
                contexts[-1].user = "ada"
                return await inner(request, contexts[-1])

            return behaviour

    def abort(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.DATA_LOSS, context.user)

    async def abort_async(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.DATA_LOSS, context.user)

    handler = abort if world == "sync" else abort_async
    kinds: dict[str, Any] = {"S": Wrap, "A": WrapAio}
    app = app_of({Kind.UNARY_UNARY: handler}, [kinds[letter]() for letter in names])
    with serve(app) as client:
        assert outcome(client, Kind.UNARY_UNARY) == (grpc.StatusCode.DATA_LOSS, "ada")
    assert [context.codes for context in contexts] == [[grpc.StatusCode.DATA_LOSS]] * len(names)


def test_an_attribute_that_is_not_there(serve: Serve) -> None:
    """It is an AttributeError, as on any object."""

    async def ask(request: Any, context: Any) -> Any:
        return {"text": f"{hasattr(context, 'user')} {hasattr(context, '_user')}"}

    with serve(app_of({Kind.UNARY_UNARY: ask}, [Sync()])) as client:
        assert client.call(PATHS[Kind.UNARY_UNARY], Item()).text == "False False"


@pytest.mark.parametrize("names", ["A", "SA", "AS"])
def test_a_sync_handler_cancels_its_call(serve: Serve, names: str) -> None:
    """context.cancel() ends the call with CANCELLED; the handler is told that it is over."""
    told: list[Any] = []

    def cancel(request: Any, context: Any) -> Any:
        told.append((context.cancel(), context.is_active(), context.cancel()))
        return {"number": 1}

    with serve(app_of(handlers_of("sync", cancel), stack(names, []))) as client:
        for kind in KINDS:
            assert outcome(client, kind)[0] is grpc.StatusCode.CANCELLED
    assert told[0] == (True, False, False)


@pytest.mark.parametrize("names", ["S", "AS"])
def test_a_handler_with_one_message_has_no_stream(serve: Serve, names: str) -> None:
    """read() and write() tell what the method has."""

    async def both(request: Any, context: Any) -> Any:
        texts = []
        for wait in (context.read, lambda: context.write(Item())):
            with pytest.raises(TypeError) as caught:
                await wait()
            texts.append(str(caught.value))
        return {"text": "\n".join(texts)}

    with serve(app_of({Kind.UNARY_UNARY: both}, stack(names, []))) as client:
        assert client.call(PATHS[Kind.UNARY_UNARY], Item()).text == (
            "a method with one request has no stream to read from\n"
            "a method with one response has no stream to write to; return it"
        )


@every_stack
def test_reading_by_hand(serve: Serve, names: str) -> None:
    """read() gives each request, then EOF; a read that was given up loses nothing."""

    async def chat(requests: Any, context: Any) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(context.read(), 0.01)
        await context.write({"number": 0})
        while (request := await context.read()) is not grpc.aio.EOF:
            await context.write(request)

    with serve(app_of({Kind.STREAM_STREAM: chat}, stack(names, []))) as client:
        begun = threading.Event()

        def requests() -> Iterator[Any]:
            begun.wait(WAIT)
            yield from (Item(number=number) for number in range(1, 101))

        stream = client.method(PATHS[Kind.STREAM_STREAM])(requests(), timeout=WAIT)
        assert next(stream).number == 0
        begun.set()
        assert [item.number for item in stream] == list(range(1, 101))


# ---- streams in both directions at once


class Counting(Sync):
    """Wraps requests and responses, as py-grpc-prometheus does."""

    def stream(self, inner: Any) -> Any:
        def counted(items: Any, what: str) -> Iterator[Any]:
            for item in items:
                self.log.append(what)
                yield item

        return lambda request, context: counted(inner(counted(request, "in"), context), "out")


class CountingAio(Aio):
    def stream(self, inner: Any) -> Any:
        async def counted(items: Any, what: str) -> AsyncIterator[Any]:
            async for item in items:
                self.log.append(what)
                yield item

        async def behaviour(request: Any, context: Any) -> AsyncIterator[Any]:
            async for item in counted(inner(counted(request, "in"), context), "out"):
                yield item

        return behaviour


@pytest.mark.parametrize("names", ["S", "A", "SA", "AS", "SAS"])
@every_world
def test_responses_do_not_wait_for_requests(serve: Serve, world: str, names: str) -> None:
    """A handler that reads and answers at the same time does so through wrapped streams too."""
    log: list[str] = []
    kinds: dict[str, Any] = {"S": Counting, "A": CountingAio}

    def chat(requests: Any, context: Any) -> Iterator[Any]:
        got: queue.Queue[Any] = queue.Queue()

        def read() -> None:
            for request in requests:
                got.put({"number": request.number})
            got.put(None)

        threading.Thread(target=read, daemon=True).start()
        yield {"number": 100}
        yield from iter(got.get, None)

    async def chat_async(requests: Any, context: Any) -> AsyncIterator[Any]:
        got: asyncio.Queue[Any] = asyncio.Queue()

        async def read() -> None:
            async for request in requests:
                got.put_nowait({"number": request.number})
            got.put_nowait(None)

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        yield {"number": 100}
        while (item := await got.get()) is not None:
            yield item
        await reading

    handler = chat if world == "sync" else chat_async
    app = app_of({Kind.STREAM_STREAM: handler}, [kinds[letter](log) for letter in names])
    with serve(app) as client:
        answered: queue.Queue[Any] = queue.Queue()
        stream = client.method(PATHS[Kind.STREAM_STREAM])(iter(answered.get, None), timeout=WAIT)
        for number in (1, 2, None):
            assert next(stream).number in (100, 1, 2)
            answered.put(None if number is None else Item(number=number))
        assert list(stream) == []
    assert (log.count("in"), log.count("out")) == (2 * len(names), 3 * len(names))
