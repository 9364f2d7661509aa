"""What hostile peers call: all four kinds, sync and async, over a message that holds everything.

``python -m tests.wire.served ENGINE [SETTINGS]`` serves it and says its address on standard output;
SETTINGS are those of ``app.server`` as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from dynserve import App, Schema

__all__ = ["KINDS", "PROTO", "SECRET", "WORLDS", "Node", "make_app", "schema"]

PROTO = """
syntax = "proto3";
package wire;
import "google/protobuf/any.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Color { NONE = 0; RED = 1; BLUE = -1; }

message Node {
  int32 number = 1;
  string text = 2;
  bytes data = 3;
  Node child = 4;
  repeated Node children = 5;
  map<string, Node> named = 6;
  map<int64, double> table = 7;
  oneof choice {
    string word = 8;
    double real = 9;
    Node other = 10;
  }
  Color color = 11;
  repeated sint64 deltas = 12;
  repeated fixed32 fixed = 13;
  repeated string names = 14;
  optional bool flag = 15;
  google.protobuf.Any any = 16;
  google.protobuf.Struct fields = 17;
  google.protobuf.Timestamp time = 18;
  google.protobuf.StringValue maybe = 19;
}

service Sync {
  rpc Unary(Node) returns (Node);
  rpc Down(Node) returns (stream Node);
  rpc Up(stream Node) returns (Node);
  rpc Chat(stream Node) returns (stream Node);
}

service Async {
  rpc Unary(Node) returns (Node);
  rpc Down(Node) returns (stream Node);
  rpc Up(stream Node) returns (Node);
  rpc Chat(stream Node) returns (stream Node);
}
"""
SECRET = "password=hunter2"
WORLDS = ("Sync", "Async")
KINDS = ("Unary", "Down", "Up", "Chat")
CHUNK = 65536

schema = Schema.load(PROTO, cache=False)
Node: Any = schema.message("wire.Node")


def answer(request: Any) -> Any:
    """The number of a request, and how much data came with it; or an error with a secret."""
    if request.text == "fail":
        raise RuntimeError(SECRET)
    return Node(number=request.number + len(request.data))


class Sync:
    """Functions and generators."""

    def __init__(self) -> None:
        self.written = 0  # responses that Down was asked for, over all calls

    def Unary(self, request: Any) -> Any:
        if request.text == "large":
            return Node(data=bytes(request.number))
        return answer(request)

    def Down(self, request: Any) -> Iterator[Any]:
        yield answer(request)
        for _ in range(request.number if request.text == "many" else 0):
            self.written += 1
            yield Node(data=bytes(CHUNK))

    def Up(self, requests: Iterator[Any]) -> Any:
        return Node(number=sum(answer(request).number for request in requests))

    def Chat(self, requests: Iterator[Any]) -> Iterator[Any]:
        for request in requests:
            yield answer(request)


class Async:
    """Coroutines and async generators."""

    def __init__(self) -> None:
        self.written = 0

    async def Unary(self, request: Any) -> Any:
        if request.text == "large":
            return Node(data=bytes(request.number))
        return answer(request)

    async def Down(self, request: Any) -> AsyncIterator[Any]:
        yield answer(request)
        for _ in range(request.number if request.text == "many" else 0):
            self.written += 1
            yield Node(data=bytes(CHUNK))

    async def Up(self, requests: AsyncIterator[Any]) -> Any:
        return Node(number=sum([answer(request).number async for request in requests]))

    async def Chat(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield answer(request)


def make_app(sync: Sync | None = None, asynchronous: Async | None = None) -> App:
    """The app."""
    app = App(schema=schema)
    app.add_servicer(sync or Sync(), "wire.Sync")
    app.add_servicer(asynchronous or Async(), "wire.Async")
    return app


def main() -> None:
    """Serve until SIGTERM."""
    options = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    options["options"] = [tuple(pair) for pair in options.get("options", ())]
    server = make_app().server("127.0.0.1:0", engine=sys.argv[1], **options)
    server.run_forever(ready=lambda: print(server.addresses[0], flush=True))


if __name__ == "__main__":
    main()
