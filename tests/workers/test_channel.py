"""Messages between a supervisor and a worker."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynserve.workers.channel import Channel, Message, Received


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel, and the socket at its other end."""
    ours, other = socket.socketpair()
    with ours, other:
        other.settimeout(10)
        yield Channel(ours), other


MESSAGES = [
    Message("ready", ["127.0.0.1:1", "[::1]:1"]),
    Message("health", {"": False, "pkg.Ünicode": True}),
    Message("stop", "replaced"),
    Message("cancel", True),
]


def test_what_is_sent_is_received(ends: tuple[Channel, socket.socket]) -> None:
    """Each kind of message, over both ends."""
    channel, other = ends
    peer = Channel(other)
    assert channel.receive() == Received([], True)
    assert [peer.send(*message) for message in MESSAGES] == [True] * 4
    assert channel.receive() == Received(MESSAGES, True)
    for why in ("stopping", "interrupted"):
        channel.send("stop", why)
        assert peer.receive() == Received([Message("stop", why)], True)


def test_the_end_is_told_with_what_came_before_it(ends: tuple[Channel, socket.socket]) -> None:
    """What is no whole line by then is nothing."""
    channel, other = ends
    other.sendall(b'{"cancel": true}\n{"stop": ')
    other.close()
    assert channel.receive() == Received([Message("cancel", True)], False)
    assert channel.send("cancel", True)  # to nobody, which is no error
    assert channel.receive() == Received([], False)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"stop": "replaced", "cancel": true}',
        b'{"unknown": 1}',
        b'{"ready": "127.0.0.1:1"}',
        b'{"ready": [1]}',
        b'{"health": ["a"]}',
        b'{"health": {"a": 1}}',
        b'{"stop": null}',
        b'{"stop": "why not"}',
        b'{"cancel": false}',
        b"x" * 100,
    ],
)
def test_what_is_no_message_ends_it(line: bytes, ends: tuple[Channel, socket.socket]) -> None:
    """What came before it counts; the problem has the beginning of the line."""
    channel, other = ends
    other.sendall(b'{"stop": "replaced"}\n' + line + b'\n{"cancel": true}\n')
    problem = f"no message: {line[:80]!r}"
    assert channel.receive() == Received([Message("stop", "replaced")], False, problem)


def test_a_line_that_does_not_end_is_no_message(ends: tuple[Channel, socket.socket]) -> None:
    """Memory is bounded, whatever comes in."""
    channel, other = ends
    other.setblocking(False)
    received, sent = Received([], True), 0
    while received == Received([], True):
        sent += other.send(b"x" * 65536)
        received = channel.receive()
    assert received == Received([], False, "a line of more than 1048576 bytes")
    assert sent <= 3 << 20


def test_of_messages_that_wait_the_newest_of_a_kind_is_sent(
    ends: tuple[Channel, socket.socket],
) -> None:
    """They say how things are, so what is kept for an end that does not read is bounded."""
    channel, other = ends
    big = {f"pkg.Service{number}": False for number in range(1000)}
    count = 0
    while channel.send("health", {**big, "count": bool(count % 2)}):
        count += 1
    assert not channel.send("health", {"older": False})
    assert not channel.send("cancel", True)
    assert not channel.send("health", {"newest": False})
    peer = Channel(other)
    messages: list[Message] = []
    while messages[-1:] != [Message("cancel", True)]:
        messages += peer.receive().messages
        channel.flush()
    assert len(messages) == count + 3
    assert messages[-2:] == [Message("health", {"newest": False}), Message("cancel", True)]


@given(st.lists(st.integers(1, 40), max_size=20))
def test_it_does_not_matter_in_what_pieces_messages_come(sizes: list[int]) -> None:
    """A line is a message when its end is there."""
    sent = b"".join(json.dumps({kind: value}).encode() + b"\n" for kind, value in MESSAGES)
    ours, other = socket.socketpair()
    with ours, other:
        channel, messages = Channel(ours), list[Any]()
        for size in [*sizes, len(sent)]:
            other.sendall(sent[:size])
            sent = sent[size:]
            messages += channel.receive().messages
    assert messages == MESSAGES
