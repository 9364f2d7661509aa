"""StatusError, and the one place where any exception becomes a status.

No text of an exception that nobody foresaw reaches a peer: it gets INTERNAL and a correlation id,
and the log gets the traceback under the same id.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import re
import traceback
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import EncodeError, Message

from dynserve.method import MethodInfo

__all__ = ["ErrorRules", "ExceptionHandler", "ReceivedError", "StatusError"]

_log = logging.getLogger("dynserve.handlers")

DETAILS_KEY = "grpc-status-details-bin"

Metadata: TypeAlias = tuple[tuple[str, "str | bytes"], ...]


# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Custom-Metadata"
_KEY = r"[0-9a-z_.\-]+"
_TEXT = r"[\x20-\x7e]*"
_pattern = functools.cache(re.compile)  # when it is first needed


def checked_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """The pairs as a tuple, if gRPC can send them.

    What the core refuses would cost the call its status, so it is refused where it is said.

    Raises:
        TypeError: not pairs, or of the wrong types.
        ValueError: a key or a value has a character that cannot be sent.
    """
    try:
        pairs: tuple[tuple[Any, Any], ...] = tuple((key, value) for key, value in metadata)
    except (TypeError, ValueError) as error:
        raise TypeError(f"got {metadata!r} as metadata, expected pairs of key and value") from error
    for key, value in pairs:
        if not isinstance(key, str) or not isinstance(value, (str, bytes)):
            raise TypeError(f"got {key!r}: {value!r} as metadata, expected str: str or bytes")
        if not _pattern(_KEY).fullmatch(key):
            raise ValueError(f"metadata key {key!r} has characters other than a-z 0-9 _ . -")
        if key.startswith("grpc-") and key != DETAILS_KEY:
            raise ValueError(f"metadata key {key!r} is reserved for gRPC itself")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise TypeError(f"metadata {key!r} is binary by its name, but its value is a str")
        elif not _pattern(_TEXT).fullmatch(
            value if isinstance(value, str) else value.decode("latin-1")
        ):
            raise ValueError(
                f"metadata {key!r} has a value with characters that are not printable ASCII;"
                f" name it '{key}-bin' and give bytes"
            )
    return pairs


def checked_code(code: object) -> grpc.StatusCode:
    """A status code, given as one or by its number.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(code, grpc.StatusCode):
        return code
    for known in grpc.StatusCode:
        if code == known.value[0]:
            return known
    raise TypeError(f"got {code!r} as a status code, expected a grpc.StatusCode")


def checked_text(text: object) -> str:
    """The text of a status, with what UTF-8 cannot hold replaced.

    Raises:
        TypeError: it is not a str.
    """
    if not isinstance(text, str):
        raise TypeError(f"got {text!r} as the text of a status, expected a str")
    return text.encode("utf-8", "replace").decode()


class StatusError(grpc.RpcError):
    """The status that a call ends with: raised by handlers, and by clients.

    Raised by a handler, it is sent as it is. It has the methods that gRPC's own errors have.

    Args:
        code: any code but OK.
        message: the text for the caller; it is sent.
        details: messages with more about the error, such as those of ``google.rpc``; sent as a
            ``google.rpc.Status`` in ``grpc-status-details-bin``
            (https://google.aip.dev/193).
        trailing_metadata: pairs to be sent with the status.

    Raises:
        TypeError, ValueError: ``code`` is OK or no status code, a detail is no message or lacks a
            required field, or the metadata cannot be sent.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str = "",
        *,
        details: Iterable[Message] = (),
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> None:
        code = checked_code(code)
        if code is grpc.StatusCode.OK:
            raise ValueError("a StatusError cannot have the code OK; return a response instead")
        super().__init__(code, message)
        self._code = code
        self._message = checked_text(message)
        self._trailing = checked_metadata(trailing_metadata)
        self._status_details: tuple[Message, ...] | None = tuple(details)
        if self._status_details:
            encoded = _encoded(code, self._message, self._status_details)
            self._trailing = (*self._trailing, (DETAILS_KEY, encoded))

    def code(self) -> grpc.StatusCode:
        """The status code."""
        return self._code

    def details(self) -> str:
        """The text of the status, in gRPC's own word for it."""
        return self._message

    @property
    def status_details(self) -> tuple[Message, ...]:
        """The messages with more about the error."""
        return self._status_details or ()

    def initial_metadata(self) -> Metadata:
        """What the server sent before its first response; empty where a handler made the error."""
        return ()

    def trailing_metadata(self) -> Metadata:  # type: ignore[override]  # the stub: named tuples
        """What is sent with the status, the encoded details included."""
        return self._trailing

    def __str__(self) -> str:
        return f"{self._code.name}: {self._message}"


class ReceivedError(StatusError):
    """The status that a server ended a call with, as a client raises it.

    Where a handler lets it through, its code, text and details are sent on. Its other metadata is
    not: it was meant for who called.

    Args:
        find_class: gives the message class of a full name; KeyError where it has none.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        initial_metadata: Metadata = (),
        trailing_metadata: Metadata = (),
        find_class: Callable[[str], type[Message]] | None = None,
    ) -> None:
        super().__init__(code, message)
        self._initial = initial_metadata
        self._trailing = trailing_metadata
        self._status_details = None
        self._find_class = find_class

    @property
    def status_details(self) -> tuple[Message, ...]:
        """The details, as messages of the client's schema or of google.rpc.

        One of a type that neither knows stays a ``google.protobuf.Any``; there are none where what
        the server sent is damaged.
        """
        if self._status_details is None:
            data = next((value for key, value in self._trailing if key == DETAILS_KEY), b"")
            self._status_details = _decoded(data, self._find_class)
        return self._status_details

    def initial_metadata(self) -> Metadata:
        """What the server sent before its first response."""
        return self._initial

    def to_be_sent(self) -> StatusError:
        """The same as a handler's own error."""
        error = StatusError(self._code, self._message)
        error._trailing = tuple(pair for pair in self._trailing if pair[0] == DETAILS_KEY)
        return error


def _encoded(code: grpc.StatusCode, text: str, details: Iterable[object]) -> bytes:
    """A serialised ``google.rpc.Status``; what cannot be sent is refused where it is said."""
    from google.rpc.status_pb2 import Status  # from googleapis-common-protos; seldom needed

    status = Status(code=code.value[0], message=text)
    for message in details:
        if not isinstance(message, Message):
            raise TypeError(f"got {message!r} as a detail of a status, expected a message")
        try:
            status.details.add().Pack(message)
        except EncodeError as error:  # a required field is missing
            raise ValueError(f"a detail of a status cannot be sent: {error}") from error
    return bytes(status.SerializeToString())


def _decoded(
    data: str | bytes, find_class: Callable[[str], type[Message]] | None
) -> tuple[Message, ...]:
    """The details in a serialised ``google.rpc.Status``; none where it is damaged."""
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2
    from google.rpc.status_pb2 import Status

    def decoded(detail: Any) -> Message:
        name = detail.type_url.rpartition("/")[2]
        try:
            message: Any = (find_class or {}.__getitem__)(name)
        except KeyError:
            package, _, last = name.rpartition(".")
            message = getattr(error_details_pb2, last, None) if package == "google.rpc" else None
        try:
            return cast("Message", detail if message is None else message.FromString(detail.value))
        except DecodeError:
            return cast("Message", detail)

    try:
        return tuple(map(decoded, Status.FromString(cast("bytes", data)).details))
    except (DecodeError, TypeError):
        return ()


class AbortError(StatusError):
    """Raised by ``context.abort``: the status is what the handler said, nothing is logged."""


ExceptionHandler: TypeAlias = Callable[[Any], StatusError]
_Error = TypeVar("_Error", bound=Exception)


class ErrorRules:
    """How exceptions of handlers become statuses: registered rules first, then the default.

    ``witness`` is told of each that nobody foresaw, with the id that the peer gets: a test wants
    the exception itself.
    """

    def __init__(self) -> None:
        self._rules: dict[type[Exception], ExceptionHandler] = {}
        self.witness: Callable[[BaseException, str], object] | None = None

    def add(self, error: type[_Error], handler: Callable[[_Error], StatusError]) -> None:
        """Map an exception class, and what derives from it, by a plain function.

        Raises:
            TypeError: ``error`` is not an exception class, or ``handler`` is not a plain function.
            ValueError: the class has a handler.
        """
        base: object = error
        if not (isinstance(base, type) and issubclass(base, Exception)):
            raise TypeError(f"got {error!r}, expected an exception class")
        if inspect.iscoroutinefunction(handler) or not callable(handler):
            raise TypeError(
                f"the exception handler for {error.__name__} must be a plain function that returns"
                f" a StatusError, got {handler!r}; it serves sync and async handlers alike"
            )
        if error in self._rules:
            raise ValueError(f"{error.__name__} has an exception handler: {self._rules[error]!r}")
        self._rules[error] = handler

    def status(
        self, error: BaseException, method: MethodInfo | str, handler: str = ""
    ) -> StatusError:
        """The status for an exception that a handler raised; what nobody foresaw is logged.

        ``handler`` is the handler's full name, for the log.
        """
        if isinstance(error, StatusError):
            return error.to_be_sent() if isinstance(error, ReceivedError) else error
        rule = next((self._rules[c] for c in type(error).__mro__ if c in self._rules), None)
        if rule is None or not isinstance(error, Exception):
            if type(error) is NotImplementedError and not error.args:
                return StatusError(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented")
            return self.unforeseen(error, method, handler)
        try:
            status: Any = rule(error)
        except StatusError as raised:
            return raised
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # sys.exit() too: what ends the process is a signal
            return self.unforeseen(raised, method, handler)
        if isinstance(status, StatusError):
            return status
        problem = f"exception handler {rule!r} returned {status!r}, expected a StatusError"
        return self.unforeseen(TypeError(problem), method, handler)

    def unforeseen(
        self, error: BaseException, method: MethodInfo | str, handler: str = ""
    ) -> StatusError:
        """INTERNAL and an id, under which the log, and the witness, has the exception."""
        identifier = os.urandom(8).hex()
        if self.witness is not None:
            self.witness(error, identifier)
        return unforeseen(error, method, handler, identifier)


def unforeseen(
    error: BaseException, method: MethodInfo | str, handler: str = "", identifier: str = ""
) -> StatusError:
    """INTERNAL and an id, under which the log has the exception."""
    identifier = identifier or os.urandom(8).hex()
    place = f" in {handler}" if handler else ""
    log_failure(logging.ERROR, error, "%s failed%s (error id %s)", method, place, identifier)
    return StatusError(grpc.StatusCode.INTERNAL, f"internal error (error id {identifier})")


def log_failure(level: int, error: BaseException, message: str, *arguments: object) -> None:
    """Log an exception with its traceback; a log that fails costs no call its status."""
    try:
        # As a tuple: logging leaves out what is false, as an exception with a length may be.
        _log.log(level, message, *arguments, exc_info=(type(error), error, error.__traceback__))
    except Exception:  # by a filter; what a handler of the log raises, logging itself prints
        with contextlib.suppress(Exception):
            traceback.print_exc()
