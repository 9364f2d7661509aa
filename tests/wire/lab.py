"""A peer that sends whatever frames it is told to, over a plain socket, with a time limit on all.

The frames are hyperframe's and the header blocks hpack's: neither knows of streams or of states, so
nothing keeps a test from breaking the rules of HTTP/2 (RFC 9113) or of gRPC over it
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grpc
from hpack import Decoder, Encoder
from hpack.struct import NeverIndexedHeaderTuple
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

__all__ = [
    "HONEST",
    "PREFACE",
    "Answer",
    "ClosedError",
    "Pairs",
    "Peer",
    "framed",
    "request_headers",
    "size_of",
    "unindexed",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WAIT = 20.0  # seconds for whatever has to come
WINDOW = 2**30
HONEST = b"\x08\x07"  # a message, and what it is answered with
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_NAMES = {
    0: "NO_ERROR",
    1: "PROTOCOL_ERROR",
    2: "INTERNAL_ERROR",
    3: "FLOW_CONTROL_ERROR",
    5: "STREAM_CLOSED",
    6: "FRAME_SIZE_ERROR",
    7: "REFUSED_STREAM",
    8: "CANCEL",
    9: "COMPRESSION_ERROR",
    11: "ENHANCE_YOUR_CALM",
}

Pairs = Sequence[tuple[bytes, bytes]]


class ClosedError(Exception):
    """The server closed the connection."""


@dataclass
class Answer:
    """What came back on a stream."""

    headers: dict[bytes, bytes] = field(default_factory=dict)  # initial ones and trailers
    data: bytes = b""
    reset: int | None = None  # the error code of RST_STREAM
    is_over: bool = False

    @property
    def code(self) -> grpc.StatusCode | str:
        """The gRPC status; without one what was there instead of it, in words."""
        if b"grpc-status" in self.headers:
            return _CODES[int(self.headers[b"grpc-status"])]
        if b":status" in self.headers and self.headers[b":status"] != b"200":
            return f"HTTP {self.headers[b':status'].decode()}"
        if self.reset is not None:
            return f"RST_STREAM {_NAMES.get(self.reset, self.reset)}"
        return "closed"

    @property
    def details(self) -> str:
        """The text of the status."""
        return self.headers.get(b"grpc-message", b"").decode("ascii")

    @property
    def messages(self) -> list[bytes]:
        """The messages, without their prefixes."""
        rest, found = self.data, []
        while rest:
            length = int.from_bytes(rest[1:5], "big")
            found.append(rest[5 : 5 + length])
            rest = rest[5 + length :]
        return found


def framed(message: bytes, compressed: int = 0) -> bytes:
    """A message with its prefix: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def size_of(headers: Pairs) -> int:
    """As SETTINGS_MAX_HEADER_LIST_SIZE counts: https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2."""
    return sum(len(name) + len(value) + 32 for name, value in headers)


def unindexed(headers: Pairs) -> Pairs:
    """The same, kept out of the tables of both sides, which takes much less time for long lists."""
    return [NeverIndexedHeaderTuple(*pair) for pair in headers]


def request_headers(
    path: bytes | str, *more: tuple[bytes, bytes], **changed: bytes | None
) -> Pairs:
    """The header list of a proper call; ``te=None`` leaves a header out, ``te=b"x"`` changes it."""
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path if isinstance(path, bytes) else f"/{path.lstrip('/')}".encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    for name, value in changed.items():
        key = name.replace("_", "-").encode()
        key = b":" + key if key in (b"method", b"scheme", b"authority") else key
        if value is None:
            del headers[key]
        else:
            headers[key] = value
    return [*headers.items(), *more]


class Peer:
    """One connection to a server.

    Args:
        address: ``HOST:PORT``.
        settings: what the SETTINGS of this side say.
        greets: send the preface and the SETTINGS at once.
        is_honest: acknowledge SETTINGS and PING, and heed the server's size of the HPACK table.
        window: how much the server may send, on the connection and on each stream.
    """

    def __init__(
        self,
        address: str,
        *,
        settings: Mapping[int, int] | None = None,
        greets: bool = True,
        is_honest: bool = True,
        window: int = WINDOW,
    ) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), WAIT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_honest = is_honest
        self.encoder = Encoder()
        self.answers: dict[int, Answer] = {}
        self.settings: dict[int, int] = {}  # the server's
        self.goaway: tuple[str, bytes] | None = None
        self.pongs: list[bytes] = []
        self.is_closed = False
        self._decoder = Decoder()
        self._decoder.max_header_list_size = 1 << 24
        self._received = bytearray()
        self._block: tuple[int, bytearray] | None = None
        self._credit = {0: 65535}  # what may be sent, on the connection (0) and streams
        self._next_stream = 1
        if greets:
            self.greet(settings or {SettingsFrame.INITIAL_WINDOW_SIZE: window}, window)

    def greet(self, settings: Mapping[int, int], window: int = WINDOW) -> None:
        """Send what opens a connection."""
        frame = SettingsFrame(0, settings=dict(settings))
        opening = PREFACE + frame.serialize()
        if window > 65535:
            opening += WindowUpdateFrame(0, window_increment=window - 65535).serialize()
        self.send_bytes(opening)

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    # ---- sending

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are.

        Raises:
            ClosedError: the server closed the connection.
        """
        try:
            self.socket.sendall(data)
        except ConnectionError as error:
            self.is_closed = True
            raise ClosedError from error

    def send(self, *frames: Frame) -> None:
        """Send frames."""
        self.send_bytes(b"".join(frame.serialize() for frame in frames))

    def new_stream(self) -> int:
        """The number of a stream that was not used yet."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        return stream

    def send_headers(
        self, stream: int, headers: Pairs, *, ends: bool = False, piece: int = 16384
    ) -> None:
        """Send a header list, in as many frames as it takes."""
        self.send(*self.header_frames(stream, headers, ends=ends, piece=piece))

    def header_frames(
        self, stream: int, headers: Pairs, *, ends: bool = False, piece: int = 16384
    ) -> list[Frame]:
        """HEADERS, and CONTINUATION for what is more than a piece."""
        block = self.encoder.encode(headers)
        pieces = [block[i : i + piece] for i in range(0, len(block), piece)] or [b""]
        frames: list[Frame] = [HeadersFrame(stream, pieces[0])]
        frames += [ContinuationFrame(stream, one) for one in pieces[1:]]
        frames[-1].flags.add("END_HEADERS")
        if ends:
            frames[0].flags.add("END_STREAM")
        return frames

    def send_data(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Send DATA of one frame, whatever the server's window."""
        self.send(DataFrame(stream, data, flags=["END_STREAM"] if ends else []))

    def open(self, headers: Pairs, data: bytes = b"", *, ends: bool = True) -> int:
        """Begin a call; returns its stream. Up to the 64 KB that any server takes."""
        stream = self.new_stream()
        frames = self.header_frames(stream, headers)
        pieces = [data[i : i + 16384] for i in range(0, len(data), 16384)] or [b""]
        frames += [DataFrame(stream, one) for one in pieces]
        if ends:
            frames[-1].flags.add("END_STREAM")
        self.send(*frames)
        self._credit[0] -= len(data)
        return stream

    def call(self, headers: Pairs, data: bytes = b"", *, ends: bool = True) -> Answer:
        """Call, and wait for the end of the stream."""
        return self.answer(self.open(headers, data, ends=ends))

    def upload(self, headers: Pairs, data: bytes) -> Answer:
        """Call with more than a window of data, as the server lets it through."""
        stream = self.new_stream()
        self.send_headers(stream, headers)
        self.until(lambda: bool(self.settings))
        self._credit[stream] = self.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, 65535)
        rest = memoryview(data)
        answer = self.answers.setdefault(stream, Answer())
        while rest and not answer.is_over:
            size = min(len(rest), 16384, self._credit[0], self._credit[stream])
            if size <= 0:
                self._wait_for_credit(answer)
                continue
            self.send_data(stream, bytes(rest[:size]), ends=size == len(rest))
            self._credit[0] -= size
            self._credit[stream] -= size
            rest = rest[size:]
        return self.answer(stream)

    def _wait_for_credit(self, answer: Answer) -> None:
        before = dict(self._credit)
        self.until(lambda: self._credit != before or answer.is_over)

    # ---- receiving

    def answer(self, stream: int, wait: float = WAIT) -> Answer:
        """What came back on a stream, once it is over or the connection is closed."""
        answer = self.answers.setdefault(stream, Answer())
        self.until(lambda: answer.is_over, wait)
        return answer

    def ping(self, data: bytes = b"are you?", wait: float = WAIT) -> bool:
        """Send a PING and wait for its acknowledgement; False where the connection is closed."""
        seen = len(self.pongs)
        try:
            self.send(PingFrame(0, opaque_data=data))
        except ClosedError:
            return False
        self.until(lambda: data in self.pongs[seen:], wait)
        return data in self.pongs[seen:]

    def wait_closed(self, wait: float = WAIT) -> tuple[str, bytes] | None:
        """Wait until the server closes the connection; what its GOAWAY said."""
        self.until(lambda: False, wait)
        return self.goaway

    def until(self, is_done: Callable[[], bool], wait: float = WAIT) -> None:
        """Handle frames until something holds or the connection is closed.

        Raises:
            TimeoutError: it does not hold in time.
        """
        deadline = time.monotonic() + wait
        while not is_done() and not self.is_closed:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not within {wait} seconds")
            self._receive(left)

    def drain(self) -> None:
        """Handle what has come."""
        self._receive(0.0)

    def _receive(self, wait: float) -> None:
        before = self.socket.gettimeout()
        self.socket.settimeout(max(wait, 0.0005))
        try:
            got = self.socket.recv(1 << 16)
        except ConnectionError:
            got = b""
        except TimeoutError:
            return
        finally:
            self.socket.settimeout(before)
        if not got:
            self.is_closed = True
        self._received += got
        for frame in self._frames():
            try:
                self._handle(frame)
            except ClosedError:  # at the sending of an acknowledgement
                continue

    def _frames(self) -> Iterable[Any]:
        while len(self._received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self._received[:9])))
            if len(self._received) < 9 + length:
                return
            frame.parse_body(memoryview(bytes(self._received[9 : 9 + length])))
            del self._received[: 9 + length]
            yield frame

    def _handle(self, frame: Any) -> None:
        answer = self.answers.setdefault(frame.stream_id, Answer())
        if isinstance(frame, (HeadersFrame, ContinuationFrame)):
            self._headers(frame, answer)
        elif isinstance(frame, DataFrame):
            answer.data += frame.data
            answer.is_over |= "END_STREAM" in frame.flags
        elif isinstance(frame, RstStreamFrame):
            answer.reset, answer.is_over = frame.error_code, True
        elif isinstance(frame, GoAwayFrame):
            name = _NAMES.get(frame.error_code, str(frame.error_code))
            self.goaway = name, frame.additional_data
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._settings(frame)
        elif isinstance(frame, PingFrame):
            self._ping(frame)
        elif isinstance(frame, WindowUpdateFrame) and frame.stream_id in self._credit:
            self._credit[frame.stream_id] += frame.window_increment

    def _headers(self, frame: Any, answer: Answer) -> None:
        if isinstance(frame, HeadersFrame):
            self._block = frame.stream_id, bytearray()
            self._ends = "END_STREAM" in frame.flags
        assert self._block is not None
        self._block[1].extend(frame.data)
        if "END_HEADERS" in frame.flags:
            answer.headers.update(self._decoder.decode(bytes(self._block[1]), raw=True))
            answer.is_over |= self._ends

    def _settings(self, frame: SettingsFrame) -> None:
        self.settings.update(frame.settings)
        if not self.settings:
            self.settings[0] = 0
        if self.is_honest:
            self.send(SettingsFrame(0, flags=["ACK"]))
            size = frame.settings.get(SettingsFrame.HEADER_TABLE_SIZE)
            if size is not None:
                self.encoder.header_table_size = min(size, 4096)

    def _ping(self, frame: PingFrame) -> None:
        if "ACK" in frame.flags:
            self.pongs.append(frame.opaque_data)
        elif self.is_honest:
            self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))
