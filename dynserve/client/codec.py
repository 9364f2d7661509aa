"""What the messages of one method are on the wire, and what its errors are to a user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, EncodeError, Message

from dynserve.errors import MessageError
from dynserve.method import MethodInfo
from dynserve.schema import Schema
from dynserve.status import ReceivedError

__all__ = ["Codec"]


class Codec:
    """Encodes the requests of a method and decodes its responses and errors."""

    __slots__ = ("_request", "_response", "gets_stream", "method", "schema", "sends_stream")

    def __init__(self, schema: Schema, method: MethodInfo) -> None:
        self.schema = schema
        self.method = method
        self.sends_stream = method.kind.request_streaming
        self.gets_stream = method.kind.response_streaming
        self._request: Any = method.request
        self._response: Any = method.response

    def encode(self, request: object) -> bytes:
        """One request, serialised.

        Raises:
            MessageError: it is not, and does not become, a message of the request type.
        """
        if type(request) is not self._request:
            request = self.schema.convert(request, self._request)
        try:
            data: bytes = request.SerializeToString()  # type: ignore[attr-defined]
        except EncodeError as error:  # a required field is not set
            raise MessageError(self._request.DESCRIPTOR.full_name, str(error)) from error
        return data

    def encode_one(self, request: object, fields: Mapping[str, Any]) -> bytes:
        """The request of a unary call: a value, or the fields of it.

        Raises:
            TypeError: both are given.
            MessageError: as :meth:`encode`.
        """
        if not fields:
            return self.encode(self._request() if request is None else request)
        if request is not None:
            raise TypeError(f"{self.method}: give a request or its fields, not both")
        return self.encode(fields)

    def stream_of(
        self, requests: Any, fields: Mapping[str, Any], expected: type | tuple[type, ...]
    ) -> Any:
        """The requests of a streaming call, if they can be iterated as is expected.

        Raises:
            TypeError: they cannot, or fields are given.
        """
        what = f"{self.method} takes a stream of requests"
        if fields and requests is None:
            raise TypeError(f"{what}: give an iterable of them, not the fields of one")
        if fields:
            raise TypeError(f"{what}, and no argument {', '.join(map(repr, fields))}")
        if isinstance(requests, (Mapping, Message, str, bytes)) or not isinstance(
            requests, expected
        ):
            raise TypeError(f"{what}: got a {type(requests).__name__}, expected an iterable")
        return requests

    def decode(self, data: bytes) -> Any:
        """A response.

        Raises:
            StatusError: INTERNAL, the bytes are no message of the response type.
        """
        try:
            return self._response.FromString(data)
        except DecodeError as error:
            name = self._response.DESCRIPTOR.full_name
            text = f"a response is not a {name}: {error}"
            raise ReceivedError(grpc.StatusCode.INTERNAL, text) from error

    def fail(self, error: Any, cause: BaseException | None = None) -> NoReturn:
        """Raise what gRPC raised, or says of a call, as a user gets it.

        gRPC's own exception says nothing else, at length, and is left out; ``cause`` is another
        reason.

        Raises:
            StatusError: always.
        """
        if isinstance(error, grpc.RpcError):
            # It may be the call itself, and would hold, through the frames that it came by, all
            # that the call was given.
            error.__traceback__ = None
        raise ReceivedError(
            error.code() or grpc.StatusCode.UNKNOWN,
            error.details() or "",
            tuple(error.initial_metadata() or ()),
            tuple(error.trailing_metadata() or ()),
            self._detail_class,
        ) from cause

    def _detail_class(self, name: str) -> type[Message]:
        if not self.schema.has_message(name):
            raise KeyError(name)
        found: type[Message] = self.schema.message(name)
        return found
