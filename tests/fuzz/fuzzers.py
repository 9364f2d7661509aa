"""The fuzzers: what is called with each input, and what must hold whatever it is."""

from __future__ import annotations

import contextlib
import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError
from hypothesis.strategies import SearchStrategy

from dynserve import App, Schema, connect
from dynserve.errors import DynserveError
from tests.client.fake_reflection import FakeReflection
from tests.fuzz.inputs import ORIGINAL, calls, descriptor_sets, header_lists
from tests.wire.honest import Honest
from tests.wire.lab import HONEST, ClosedError, Peer, framed, request_headers
from tests.wire.served import SECRET, Node, make_app

__all__ = ["FUZZERS", "Fuzzer"]

_Code = grpc.StatusCode
_FAILED = re.compile(r"internal error \(error id [0-9a-f]{16}\)")
_INVALID = "the request is not a valid wire.Node"
WAIT = 20.0
_MAKERS = {
    "Unary": "unary_unary",
    "Down": "unary_stream",
    "Up": "stream_unary",
    "Chat": "stream_stream",
}


class Fuzzer(ABC):
    """One thing that is fuzzed. ``outcomes`` counts what came of the inputs."""

    inputs: SearchStrategy[Any]

    def __init__(self, engine: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.engine = engine
        self._stack = contextlib.ExitStack()
        logging.disable()  # handlers fail on purpose, thousands of times

    @abstractmethod
    def check(self, case: Any) -> None:
        """Raises where something does not hold."""

    def close(self) -> None:
        """End what was started."""
        self._stack.close()

    def serve(self) -> str:
        """Serve the app of ``tests/wire``; its address."""
        # The core answers some refusals up to a second late; not here, for there are thousands.
        options = [("grpc.http.tarpit", 0)]
        server = make_app().server("127.0.0.1:0", engine=self.engine, options=options)
        return self._stack.enter_context(server.in_thread()).addresses[0]


class Requests(Fuzzer):
    """Request bytes, to all kinds: OK, INVALID_ARGUMENT where they do not parse, INTERNAL where the
    handler failed; with fixed texts, and as many answers as there were requests before that."""

    inputs = calls

    def __init__(self, engine: str) -> None:
        super().__init__(engine)
        channel = grpc.insecure_channel(self.serve())
        self._channel = self._stack.enter_context(channel)

    def check(self, case: tuple[str, str, list[bytes]]) -> None:
        world, kind, requests = case
        path = f"/wire.{world}/{kind}"
        if kind in ("Unary", "Down"):
            requests = requests[:1]
        code, details = self._call(path, kind, requests)
        assert SECRET not in details
        self.outcomes[code.name] += 1
        expected = self._expected(requests, kind)
        assert code in expected, (code, details, expected)
        match code:
            case _Code.OK:
                assert details == ""
            case _Code.INVALID_ARGUMENT:
                assert details == _INVALID
            case _:
                assert _FAILED.fullmatch(details), details

    def _call(self, path: str, kind: str, requests: list[bytes]) -> tuple[_Code, str]:
        call: Any = getattr(self._channel, _MAKERS[kind])(path)
        try:
            match kind:
                case "Unary":
                    call(requests[0], timeout=WAIT)
                case "Down":
                    list(call(requests[0], timeout=WAIT))
                case "Up":
                    call(iter(requests), timeout=WAIT)
                case _:
                    list(call(iter(requests), timeout=WAIT))
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        return _Code.OK, ""

    @staticmethod
    def _expected(requests: list[bytes], kind: str) -> set[_Code]:
        """By the same parser: the first request that is no message, or fails, ends the call."""
        total = 0
        for data in requests:
            try:
                node = Node.FromString(data)
            except DecodeError:
                return {_Code.INVALID_ARGUMENT}
            total += node.number + len(node.data)
            alone = node.number + len(node.data)
            if node.text == "fail" or not -(2**31) <= alone < 2**31:
                return {_Code.INTERNAL}
        return {_Code.OK} if kind != "Up" or -(2**31) <= total < 2**31 else {_Code.INTERNAL}


class Metadata(Fuzzer):
    """Header names and values of all bytes, as raw frames: every call ends, by a status, a reset or
    with its connection; the connection beside it goes on."""

    inputs = header_lists

    def __init__(self, engine: str) -> None:
        super().__init__(engine)
        self._address = self.serve()
        self._honest = self._stack.enter_context(Honest(self._address))

    def check(self, case: tuple[str, list[tuple[bytes, bytes]], bytes]) -> None:
        path, pairs, request = case
        headers = request_headers(path, grpc_timeout=b"10S")
        with Peer(self._address) as peer:
            try:
                answer = peer.call([*headers, *pairs], framed(request))
            except ClosedError:
                self.outcomes["closed"] += 1
            else:
                self.outcomes[getattr(answer.code, "name", str(answer.code))] += 1
                assert SECRET not in repr(answer)
                assert "Traceback" not in repr(answer)
            if not peer.is_closed:
                after = peer.call(request_headers("wire.Sync/Unary"), framed(HONEST))
                assert after.messages == [HONEST], after
        if sum(self.outcomes.values()) % 20 == 0:
            self._honest.answered()


class Descriptors(Fuzzer):
    """Descriptor sets: they load and can be served, or an error of dynserve's own says what is
    wrong. So it is for those that a server's reflection tells."""

    inputs = descriptor_sets

    def __init__(self, engine: str) -> None:
        super().__init__(engine)
        self._files: dict[str, bytes] = {}

    def check(self, case: bytes) -> None:
        loaded = self._attempt("load", lambda: self._load(case))
        if loaded is not None:
            self._attempt("serve", lambda: self._serve(loaded))
        self._attempt("reflection", lambda: self._reflect(case))

    def _attempt(self, what: str, step: Callable[[], Any]) -> Any:
        try:
            result = step()
        except (DynserveError, grpc.RpcError) as error:
            self.outcomes[f"{what}: {type(error).__name__}"] += 1
            return None
        self.outcomes[f"{what}: done"] += 1
        return result

    @staticmethod
    def _load(data: bytes) -> Schema:
        loaded = Schema.load(data, cache=False)
        for path in _paths(loaded):
            method = loaded.method(path)
            method.request().SerializeToString()
            method.response().SerializeToString()
        return loaded

    def _serve(self, loaded: Schema) -> bool:
        app = App(schema=loaded)
        for path in _paths(loaded):
            app.add(lambda request: request, path)
        app.server("127.0.0.1:0", engine=self.engine)
        return True

    def _reflect(self, data: bytes) -> bool:
        try:
            files = FileDescriptorSet.FromString(data).file
        except DecodeError:
            files = FileDescriptorSet.FromString(ORIGINAL).file
        told = {file.name: file.SerializeToString() for file in files}
        with FakeReflection(told).serving() as address, connect(address) as client:
            for name in ("wire.Sync", "wire.Async"):
                client.service(name)
        return True


def _paths(loaded: Schema) -> list[str]:
    return [
        f"{service}/{name}" for service in loaded.services for name in loaded.method_kinds(service)
    ]


FUZZERS: dict[str, type[Fuzzer]] = {
    "requests": Requests,
    "metadata": Metadata,
    "descriptors": Descriptors,
}
