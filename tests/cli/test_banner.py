"""What ``dynserve run`` says when it is ready."""

from __future__ import annotations

import time
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from dynserve import App, Schema
from dynserve.binding import bind
from dynserve.cli import banner

SHOP = Schema.load(
    """
    syntax = "proto3";
    package shop;
    message Item { string name = 1; }
    service Carts { rpc Watch(Item) returns (stream Item); }
    service Items { rpc Put(stream Item) returns (Item); rpc Get(Item) returns (Item); }
    """,
    cache=False,
)


def get(request: Any) -> Any:
    return request


def shown(app: App, *addresses: str, reflection: bool = True) -> None:
    banner.show(bind(app.units()), addresses or ("127.0.0.1:50051",), reflection)


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Each method with its kind and handler, the holes, the addresses, and commands to paste."""
    app = App(schema=SHOP)
    app.add(get)
    shown(app, "127.0.0.1:50051", "unix:/run/s")
    assert capsys.readouterr().out == (
        "shop.Carts/Watch (unary-stream): no handler\n"
        "shop.Items/Put (stream-unary): no handler\n"
        "shop.Items/Get (unary-unary): get\n"
        "2 of 3 methods have no handler (--strict refuses to start)\n"
        "Listening on 127.0.0.1:50051\n"
        "Listening on unix:/run/s\n"
        "\n"
        """  dynserve call 127.0.0.1:50051 shop.Items/Get -d '{"name": "text"}'\n"""
        "  grpcurl -plaintext 127.0.0.1:50051 list\n"
        "  grpcurl -plaintext 127.0.0.1:50051 describe shop.Items\n"
        """  grpcurl -plaintext -d '{"name": "text"}' 127.0.0.1:50051 shop.Items/Get\n"""
    )


def test_without_reflection_there_is_nothing_to_discover(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No command is offered that could not work."""
    app = App(schema=SHOP)
    app.fallback(get)
    shown(app, reflection=False)
    assert capsys.readouterr().out == (
        "shop.Carts/Watch (unary-stream): get\n"
        "shop.Items/Put (stream-unary): get\n"
        "shop.Items/Get (unary-unary): get\n"
        "Listening on 127.0.0.1:50051\n"
        "\n"
        "  Reflection is off: clients need the .proto files, as in grpcurl -proto FILE\n"
    )


def test_a_schema_without_services(capsys: pytest.CaptureFixture[str]) -> None:
    """A schema of messages only is served, and said to have no method."""
    shown(App('syntax = "proto3"; message M {}'))
    assert capsys.readouterr().out == (
        "No service of the schema has a method.\n"
        "Listening on 127.0.0.1:50051\n"
        "\n"
        "  grpcurl -plaintext 127.0.0.1:50051 list\n"
    )


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("[::1]:1", "[::1]:1"),
        ("example.org:1", "example.org:1"),
        ("0.0.0.0:1", "localhost:1"),
        ("[::]:1", "localhost:1"),
        (":1", "localhost:1"),
        ("ipv4:127.0.0.1:1", "127.0.0.1:1"),
        ("ipv6:[::]:1", "localhost:1"),
        ("dns:///example.org:1", "example.org:1"),
        ("unix:/run/a b", "'unix:/run/a b'"),
        ("unix:///run/s", "unix:///run/s"),
        ("unix:s", "unix:s"),
        ("unix-abstract:s", "unix-abstract:s"),
    ],
)
def test_commands_dial_what_is_listened_on(
    address: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The address is written as grpcurl on this machine needs it."""
    shown(App(schema=SHOP), address)
    assert capsys.readouterr().out.splitlines()[-1] == f"  grpcurl -plaintext {target} list"


@pytest.mark.parametrize(("count", "shown", "rest"), [(50, 50, []), (51, 40, [11])])
def test_a_few_more_methods_are_shown_too(
    count: int, shown: int, rest: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that counts stands for many."""
    methods = "".join(f"rpc M{number}(M) returns (M); " for number in range(count))
    shown_app = App('syntax = "proto3"; message M {} service S { ' + methods + "}")
    banner.show(bind(shown_app.units()), ["h:1"], reflection=True)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("S/M") for line in lines) == shown
    assert [line for line in lines if line.startswith("...")] == [
        f"... and {number} more methods" for number in rest
    ]


def test_a_huge_schema_is_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Forty methods are listed, the rest counted, and nothing but the first is built."""
    files = FileDescriptorSet()
    for number in range(3000):
        file = files.file.add(name=f"{number:04}.proto", package=f"p{number:04}", syntax="proto3")
        file.message_type.add(name="M")
        service = file.service.add(name="S")
        for method in ("A", "B", "C"):
            m = f".p{number:04}.M"
            service.method.add(name=method, input_type=m, output_type=m)
    app = App(files)
    app.service("p0002.S").add(get, "B")
    routes = bind(app.units())
    started = time.process_time()
    banner.show(routes, ["h:1"], reflection=True)
    seconds = time.process_time() - started
    lines = capsys.readouterr().out.splitlines()
    assert lines[7] == "p0002.S/B (unary-unary): get"
    assert lines[39:] == [
        "p0013.S/A (unary-unary): no handler",
        "... and 8960 more methods",
        "8999 of 9000 methods have no handler (--strict refuses to start)",
        "Listening on h:1",
        "",
        "  dynserve call h:1 p0002.S/B -d '{}'",
        "  grpcurl -plaintext h:1 list",
        "  grpcurl -plaintext h:1 describe p0002.S",
        "  grpcurl -plaintext -d '{}' h:1 p0002.S/B",
    ]
    assert seconds < 1
