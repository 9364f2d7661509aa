"""The sync client."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from dynserve.errors import ReflectionError
from dynserve.method import MethodInfo
from dynserve.status import Metadata, ReceivedError

from .base import ClientBase, split_path
from .reflected import Question, Steps
from .stub import Stub
from .sync_call import Method, method_of

__all__ = ["Client", "connect"]

_Result = TypeVar("_Result")


class Client(ClientBase):  # noqa: D101 - the docstring is made of its base's, for help()
    __doc__ = f"""{ClientBase.__doc__}
    Safe to use from several threads; to be closed, best by ``with``::

        with dynserve.connect("localhost:50051") as client:
            route_guide = client.service("routeguide.RouteGuide")
            feature = route_guide.GetFeature(latitude=1, longitude=2)
    """

    def _prepare(self) -> None:
        self._channel = self._settings.open()
        self._lock = threading.Lock()

    @property
    def channel(self) -> grpc.Channel:
        """gRPC's own channel, for what is not here."""
        return self._channel

    def service(self, name: str) -> Stub[Method]:
        """A stub of the service of that full name.

        Raises:
            SymbolError: there is no such service.
            ReflectionError: the server tells of none; name the sources.
            StatusError: the server could not be asked.
            SourceError, CompileError, CompilerError, DescriptorError: see :meth:`Schema.load`.
        """
        self._load(name, "service")
        return Stub(self.schema.service(name), self._method)

    def method(self, path: str) -> Method:
        """A method by ``pkg.Service/Method``; raises as :meth:`service`."""
        service, name = split_path(path)
        self._load(service, "service")
        return self._method(self.schema.method(f"{service}/{name}"))

    def services(self) -> tuple[str, ...]:
        """The full names of the services: those of the sources, or all that the server tells of.

        Raises:
            ReflectionError, StatusError: as :meth:`service`.
        """
        return self._run(self._source.services())

    def load(self, *symbols: str) -> None:
        """Have the schema hold these symbols: messages to be made of it, content of an ``Any``.

        Raises:
            SymbolError: the server knows no such symbol.
            ReflectionError, StatusError: as :meth:`service`.
        """
        for symbol in symbols:
            self._load(symbol, "symbol")

    def load_contents(self, message: Message) -> None:
        """Have the schema hold the types of all that the ``Any`` fields of a message hold.

        Then it has a JSON form: ``client.schema.to_json(message)``. Of a type that the server does
        not tell of nothing is shown in it, and a warning is logged.
        """
        self._run(self._load_contents(message))

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Connect now, and return when the server can be called.

        Raises:
            grpc.FutureTimeoutError: it could not in ``timeout`` seconds.
        """
        grpc.channel_ready_future(self._channel).result(timeout)

    def close(self) -> None:
        """Cancel the calls under way and end the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _load(self, symbol: str, kind: str) -> None:
        if not self._source.has(symbol):
            self._run(self._source.load(symbol, kind))

    def _method(self, info: MethodInfo) -> Method:
        method: Method | None = self._methods.get(info.path)
        if method is None:
            made = method_of(self._channel, self._codec(info), self._defaults)
            method = self._methods.setdefault(info.path, made)
        return method

    def _run(self, steps: Steps[_Result]) -> _Result:
        """Take the steps, one question to the server's reflection after the other."""
        with self._lock:
            conversation = _Conversation(self, self._reflection_metadata, self._reflection_timeout)
            try:
                step = next(steps)
                while True:
                    try:
                        answer = conversation.ask(step) if isinstance(step, Question) else step()
                    except Exception as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as end:
                result: _Result = end.value
                return result
            finally:
                conversation.end()


connect = Client


class _Conversation:
    """Questions and answers on one stream; another one when the method is another."""

    def __init__(self, client: Client, metadata: Metadata, timeout: float | None) -> None:
        self._client = client
        self._metadata = metadata
        self._timeout = timeout
        self._path = ""
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers: Any = None

    def ask(self, question: Question) -> list[bytes]:
        """The answers, in order."""
        if question.path != self._path:
            self._begin(question.path)
        for request in question.requests:
            self._requests.put(request)
        try:
            answers = [next(self._answers) for _ in question.requests]
        except grpc.RpcError as error:
            status: Any = error
            self._path = ""  # the stream has ended
            raise ReceivedError(status.code(), status.details() or "") from error
        except StopIteration:
            self._path = ""
            problem = "ended the stream of its reflection"
            raise ReflectionError(self._client.target, problem) from None
        return answers

    def _begin(self, path: str) -> None:
        self.end()
        self._path = path
        self._requests = queue.SimpleQueue()
        channel: Any = self._client.channel
        self._answers = channel.stream_stream(path)(
            iter(self._requests.get, None), timeout=self._timeout, metadata=self._metadata
        )

    def end(self) -> None:
        """End the stream, if there is one."""
        self._requests.put(None)
        if self._answers is not None:
            self._answers.cancel()
