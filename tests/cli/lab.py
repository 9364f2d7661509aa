"""A server that tests of the command line call, and the command in a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from dynserve import App, StatusError

__all__ = [
    "FILES",
    "Child",
    "lab",
    "reflecting",
    "timeless",
    "without_times",
]

ROOT = Path(__file__).parents[2]
SECONDS = 30

FILES = {
    "lab.proto": """\
syntax = "proto3";

package lab;

import "google/protobuf/any.proto";

// Tries things out.
service Lab {
  // Answers with the request.
  rpc Echo(Item) returns (Item);
  rpc Down(Item) returns (stream Item);
  rpc Up(stream Item) returns (Item);
  rpc Chat(stream Item) returns (stream Item);
  // Ends with the status of that number.
  rpc Fail(Item) returns (Item);
  rpc Details(Item) returns (Item);
  rpc Metadata(Item) returns (Item);
  rpc Wait(Item) returns (stream Item);
  rpc Hold(Item) returns (Item);
}

// A thing.
message Item {
  // How many.
  int32 number = 1;
  string text = 2;
  google.protobuf.Any any = 3;
  oneof choice {
    Part part = 4;
    Size size = 5;
  }
  repeated Part parts = 6;

  message Part {
    string name = 1;
  }
}

enum Size {
  SMALL = 0;
  LARGE = 1;  // for two
}
""",
    "hidden.proto": """\
syntax = "proto3";

package lab;

// No method has it.
message Hidden {
  string secret = 1;
}
""",
    "old.proto": """\
syntax = "proto2";

package old;

message Note {
  required string text = 1;
  extensions 100 to 199;
}

extend Note {
  // Who wrote it.
  optional string author = 100;
}

service Notes {
  rpc Put(Note) returns (Note);
}
""",
}


def lab(folder: Path) -> App:
    """An app that serves the files above, which are in the folder."""
    app = App(folder)
    service = app.service("lab.Lab")
    service.add(_echo, "Echo")
    service.add(_down, "Down")
    service.add(_up, "Up")
    service.add(_chat, "Chat")
    service.add(_fail, "Fail")
    service.add(_details(app), "Details")
    service.add(_metadata, "Metadata")
    service.add(_wait, "Wait")
    service.add(_hold(app), "Hold")
    app.service("old.Notes").add(_echo, "Put")
    return app


def _echo(request: Any) -> Any:
    return request


def _down(request: Any) -> Iterator[dict[str, int]]:
    for number in range(request.number):
        yield {"number": number}


def _up(requests: Iterator[Any]) -> dict[str, int]:
    total = 0
    for request in requests:
        total += request.number
        if request.number < 0:
            raise StatusError(grpc.StatusCode.OUT_OF_RANGE, f"{request.number} is too little")
    return {"number": total}


async def _chat(requests: AsyncIterator[Any]) -> AsyncIterator[dict[str, str]]:
    async for request in requests:
        yield {"text": f"You said: {request.text}"}


def _fail(request: Any) -> None:
    code = next(code for code in grpc.StatusCode if code.value[0] == request.number)
    raise StatusError(code, request.text or "as asked")


def _details(app: App) -> Any:
    def details(request: Any) -> None:
        from google.protobuf.any_pb2 import Any as AnyMessage
        from google.rpc.error_details_pb2 import BadRequest

        if request.number:
            damaged = [("grpc-status-details-bin", b"\xff")]
            raise StatusError(grpc.StatusCode.ABORTED, "bad", trailing_metadata=damaged)
        problem = BadRequest.FieldViolation(field="text", description="too long")
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "no good",
            details=[
                BadRequest(field_violations=[problem]),
                app.schema.message("lab.Hidden")(secret="é"),
                AnyMessage(type_url="x.org/gone.Type", value=b"\x01"),
            ],
        )

    return details


def _hold(app: App) -> Any:
    def hold(request: Any) -> Any:
        """A type that no method names, or one that nobody knows."""
        answer = app.schema.message("lab.Item")(text="held")
        answer.any.Pack(app.schema.message("lab.Hidden")(secret="é"))
        if request.number:
            answer.any.type_url = "x.org/gone.Type"
        return answer

    return hold


def _metadata(request: Any, context: Any) -> dict[str, str]:
    context.send_initial_metadata([("first", "1"), ("first-bin", b"\x01\xff")])
    context.set_trailing_metadata([("last", "2"), ("last-bin", b"\x02")])
    got = [
        f"{key}={value!r}"
        for key, value in context.invocation_metadata()
        if key.startswith(("x-", "auth"))
    ]
    return {"text": " ".join(got)}


async def _wait(request: Any) -> AsyncIterator[dict[str, int]]:
    """One response, and no end."""
    yield {"number": 1}
    await asyncio.Event().wait()


# ---- other servers


def reflecting(files: Iterable[FileDescriptorProto], *services: str, seen: Any = None) -> App:
    """An app that serves nothing but reflection, and tells what a test likes.

    The metadata that it is asked with is added to the list ``seen``.
    """
    by_name = {file.name: file.SerializeToString() for file in files}
    item: Any
    by_symbol: dict[str, bytes] = {}
    for file in files:
        for item in (*file.message_type, *file.service):
            by_symbol[f"{file.package}.{item.name}".lstrip(".")] = by_name[file.name]

    def info(requests: Iterator[Any], context: Any) -> Iterator[dict[str, Any]]:
        if seen is not None:
            pairs = [(key, value) for key, value in context.invocation_metadata()]
            seen.extend(pair for pair in pairs if pair[0].startswith("x-"))
        for request in requests:
            asked = request.WhichOneof("message_request")
            found = (by_symbol if asked == "file_containing_symbol" else by_name).get(
                getattr(request, asked)
            )
            if asked == "list_services":
                listed = [{"name": service} for service in services]
                yield {"list_services_response": {"service": listed}}
            elif found is None:
                yield {"error_response": {"error_code": 5, "error_message": "not here"}}
            else:
                yield {"file_descriptor_response": {"file_descriptor_proto": [found]}}

    app = App(reflection_pb2)
    app.add(info, "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    return app


def timeless() -> App:
    """An app whose reflection takes questions and never answers."""

    async def info(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    app = App(reflection_pb2)
    app.add(info, "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    return app


# ---- the command in a process of its own


class Child:
    """``dynserve`` with pipes to all that it reads and writes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @classmethod
    @contextmanager
    def of(cls, *words: str, env: Mapping[str, str] | None = None, **options: Any) -> Iterator[Any]:
        """``with Child.of("list", address) as child``."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dynserve", *words],
            stdin=options.pop("stdin", subprocess.PIPE),
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, **(env or {})},
            **options,
        )
        with process:
            try:
                yield cls(process)
            finally:
                process.kill()

    def write(self, text: str) -> None:
        """To its standard input, which stays open."""
        stdin = _there(self.process.stdin)
        stdin.write(text)
        stdin.flush()

    def line(self) -> str:
        """The next line of its standard output."""
        return _there(self.process.stdout).readline()

    def end(self) -> tuple[int, str, str]:
        """Wait until it ends with its standard input open; its exit code, and what it still said.

        What it said on standard error has no times in it.
        """
        code = self.process.wait(SECONDS)
        out = "" if self.process.stdout is None else self.process.stdout.read()
        return code, out, _there(self.process.stderr).read()


def without_times(text: str) -> str:
    """What ``--verbose`` says, with the same time everywhere."""
    return re.sub(r"\d+\.\d ms", "1.0 ms", text)


def _there(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise AssertionError("not a pipe")
    return stream
