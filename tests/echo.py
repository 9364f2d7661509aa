"""A service with one method of each kind, and what tests of handlers share."""

from __future__ import annotations

from typing import Any

from dynserve import App, Kind, Schema

ECHO = """
syntax = "proto3";
package echo;
message Item { int32 number = 1; string text = 2; }
message Other { int32 number = 1; }
service Echo {
  rpc Unary(Item) returns (Item);
  rpc Down(Item) returns (stream Item);
  rpc Up(stream Item) returns (Item);
  rpc Chat(stream Item) returns (stream Item);
}
"""

PATHS = {
    Kind.UNARY_UNARY: "echo.Echo/Unary",
    Kind.UNARY_STREAM: "echo.Echo/Down",
    Kind.STREAM_UNARY: "echo.Echo/Up",
    Kind.STREAM_STREAM: "echo.Echo/Chat",
}

schema = Schema.load(ECHO, cache=False)
Item: Any = schema.message("echo.Item")


def app_with(handler: Any, kind: Kind) -> App:
    """An app that serves the method of this kind with the handler."""
    app = App(schema=schema)
    app.add(handler, PATHS[kind])
    return app


def request_for(kind: Kind, *numbers: int) -> Any:
    """What a client sends: the items, or the only one."""
    items = [Item(number=number) for number in numbers]
    return items if kind.request_streaming else items[0]


def numbers_of(response: Any) -> list[int]:
    """The numbers of a response, one or many."""
    return [item.number for item in (response if isinstance(response, list) else [response])]
