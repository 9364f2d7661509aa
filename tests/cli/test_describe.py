"""``dynserve describe``: what declares a symbol, and requests to fill in."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from dynserve import Schema
from dynserve.cli.main import invoke

from .lab import Child, reflecting

ITEM = """\
// A thing.
message Item {
  // How many.
  int32 number = 1;
  string text = 2;
  google.protobuf.Any any = 3;

  oneof choice {
    lab.Item.Part part = 4;
    lab.Size size = 5;
  }

  repeated lab.Item.Part parts = 6;

  message Part {
    string name = 1;
  }
}
"""
LAB = """\
// Tries things out.
service Lab {
  // Answers with the request.
  rpc Echo(lab.Item) returns (lab.Item);
  rpc Down(lab.Item) returns (stream lab.Item);
  rpc Up(stream lab.Item) returns (lab.Item);
  rpc Chat(stream lab.Item) returns (stream lab.Item);

  // Ends with the status of that number.
  rpc Fail(lab.Item) returns (lab.Item);
  rpc Details(lab.Item) returns (lab.Item);
  rpc Metadata(lab.Item) returns (lab.Item);
  rpc Wait(lab.Item) returns (stream lab.Item);
  rpc Hold(lab.Item) returns (lab.Item);
}
"""
NOTES = """\
service Notes {
  rpc Put(old.Note) returns (old.Note);
}
"""
SYMBOLS = {
    "lab.Lab": LAB,
    "lab.Lab/Echo": "// Answers with the request.\nrpc Echo(lab.Item) returns (lab.Item);\n",
    "/lab.Lab/Up": "rpc Up(stream lab.Item) returns (lab.Item);\n",
    "lab.Lab.Down": "rpc Down(lab.Item) returns (stream lab.Item);\n",
    "lab.Item": ITEM,
    "lab.Item.Part": "message Part {\n  string name = 1;\n}\n",
    "lab.Item.Part.name": "string name = 1;\n",
    "lab.Item.number": "// How many.\nint32 number = 1;\n",
    "lab.Item.choice": "oneof choice {\n  lab.Item.Part part = 4;\n  lab.Size size = 5;\n}\n",
    "lab.Size": "enum Size {\n  SMALL = 0;\n  LARGE = 1;  // for two\n}\n",
    "lab.LARGE": "LARGE = 1;  // for two\n",
    "lab.Size.LARGE": "LARGE = 1;  // for two\n",
    "old.author": "extend old.Note {\n  // Who wrote it.\n  optional string author = 100;\n}\n",
}


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = invoke(["describe", *words])
    return (code, *capsys.readouterr())


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("origin", ["server", "source"])
def test_every_kind_of_symbol(
    symbol: str, origin: str, address: str, protos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its .proto text with its comments, from a server as from its sources."""
    target = address if origin == "server" else str(protos)
    assert said(capsys, target, symbol) == (0, SYMBOLS[symbol], "")


def test_several_symbols(protos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has its full name and its file above it; without any, every service is described."""
    notes = f"// old.Notes, in old.proto\n\n{NOTES}"
    lab = f"// lab.Lab, in lab.proto\n\n{LAB}"
    assert said(capsys, str(protos), "old.Notes", "lab.Lab") == (0, f"{notes}\n{lab}", "")
    assert said(capsys, str(protos)) == (0, f"{lab}\n{notes}", "")


def test_every_service_of_a_server(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of dynserve itself among them."""
    code, out, err = said(capsys, address)
    assert (code, err) == (0, "")
    assert re.findall("^// [a-zA-Z0-9.]+, in .*", out, re.MULTILINE) == [
        "// grpc.health.v1.Health, in grpc_health/v1/health.proto",
        "// grpc.reflection.v1.ServerReflection, in grpc/reflection/v1/reflection.proto",
        "// grpc.reflection.v1alpha.ServerReflection, in grpc_reflection/v1alpha/reflection.proto",
        "// lab.Lab, in lab.proto",
        "// old.Notes, in old.proto",
    ]
    assert out.endswith(NOTES)


def test_a_service_that_is_listed_and_not_told(
    protos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are described, a warning names it, and the exit code is 1."""
    data = Schema.load(str(protos / "old.proto")).index.raw("old.proto")
    app = reflecting([FileDescriptorProto.FromString(data)], "a.A", "old.Notes")
    with app.server("127.0.0.1:0", reflection=False).in_thread() as server:
        assert said(capsys, server.addresses[0]) == (
            1,
            NOTES,
            "Warning: a.A is listed by the server, which does not tell of it\n",
        )


def test_a_symbol_beside_a_service_that_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What is near is looked for, and what goes wrong there is not said."""
    with reflecting([], "a.A").server("127.0.0.1:0", reflection=False).in_thread() as server:
        place = server.addresses[0]
        assert said(capsys, place, "a.Aa") == (
            1,
            "",
            f"Error: no symbol 'a.Aa' on {place}; did you mean 'a.A'?\n",
        )


@pytest.mark.parametrize(
    ("symbol", "server", "source"),
    [
        (
            "lab.Itme",
            "no symbol 'lab.Itme' on ADDR; did you mean 'lab.Item'?",
            "no symbol 'lab.Itme' in the schema; did you mean 'lab.Item'?",
        ),
        (
            "lab.Item.numbr",
            "no symbol 'lab.Item.numbr' on ADDR; did you mean 'lab.Item.number'?",
            "no symbol 'lab.Item.numbr' in the schema; did you mean 'lab.Item.number'?",
        ),
        (
            "lab.Lab/Ecko",
            "no symbol 'lab.Lab.Ecko' on ADDR; did you mean 'lab.Lab.Echo'?",
            "no symbol 'lab.Lab.Ecko' in the schema; did you mean 'lab.Lab.Echo'?",
        ),
        (
            "lab.lab",
            "no symbol 'lab.lab' on ADDR; did you mean 'lab.Lab'?",
            "no symbol 'lab.lab' in the schema; did you mean 'lab.Lab'?",
        ),
    ],
)
def test_unknown_symbols(
    symbol: str,
    server: str,
    source: str,
    address: str,
    protos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Names that are near are offered: a server's services, and all that is known beside it."""
    code, out, err = said(capsys, address, symbol)
    expected = server.replace("ADDR", address)
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {expected[:-1]}")
    code, out, err = said(capsys, str(protos), symbol)
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {source[:-1]}")


def test_an_output_that_has_no_unicode(tmp_path: Path) -> None:
    """A comment with another character is shown all the same."""
    (tmp_path / "a.proto").write_text('syntax = "proto3";\n// é\nmessage M {}')
    with Child.of(
        "describe", str(tmp_path / "a.proto"), "M", env={"PYTHONIOENCODING": "iso8859-5"}
    ) as child:
        assert child.end() == (0, "// \\xe9\nmessage M {}\n", "")


# ---- requests to fill in

TEMPLATES = """
syntax = "proto3";
package t;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Colour { NONE = 0; RED = 1; }
message Tree {
  string name = 1;
  repeated Tree children = 2;
  map<bool, Leaf> leaves = 3;
  map<int32, Colour> colours = 4;
  map<string, Tree> trees = 5;
  oneof one { bytes a = 6; Leaf b = 7; }
  optional int64 maybe = 8;
}
message Leaf { double size = 1; Colour colour = 2; }
message Known {
  google.protobuf.Any any = 1;
  google.protobuf.Duration took = 2;
  google.protobuf.Timestamp at = 3;
  google.protobuf.Struct data = 4;
  google.protobuf.Value value = 5;
  google.protobuf.ListValue list = 6;
  google.protobuf.BoolValue yes = 7;
  google.protobuf.UInt64Value big = 8;
}
service S { rpc Do(Tree) returns (Known); }
service None {}
"""
TREE = {
    "name": "text",
    "leaves": {"true": {"size": 1, "colour": "NONE"}},
    "colours": {"1": "NONE"},
    "trees": {},
    "a": "AA==",
    "maybe": 1,
}
KNOWN = {
    "any": {},
    "took": "1.5s",
    "at": "2001-02-03T04:05:06Z",
    "data": {},
    "value": "text",
    "list": [],
    "yes": True,
    "big": "1",
}


@pytest.mark.parametrize(
    ("symbol", "template"),
    [("t.S/Do", TREE), ("t.S.Do", TREE), ("t.Tree", TREE), ("t.Known", KNOWN)],
)
def test_json_templates(
    symbol: str, template: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All fields, of a oneof the first, what contains itself once; protobuf reads it."""
    (tmp_path / "t.proto").write_text(TEMPLATES)
    code, out, err = said(capsys, str(tmp_path), symbol, "--json-template")
    assert (code, json.loads(out), err) == (0, template, "")
    assert out == json.dumps(template, indent=2) + "\n"
    schema = Schema.load(tmp_path)
    schema.from_json(out, schema.message("t.Known" if symbol == "t.Known" else "t.Tree"))


def test_json_templates_of_a_server(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same from reflection; several stand one below the other."""
    words = ("lab.Lab/Echo", "lab.Hidden", "--json-template", "--max-time", "20")
    code, out, err = said(capsys, address, *words)
    assert (code, err) == (0, "")
    item, hidden = out.split("\n\n")
    assert json.loads(item) == {
        "number": 1,
        "text": "text",
        "any": {},
        "part": {"name": "text"},
        "parts": [{"name": "text"}],
    }
    assert json.loads(hidden) == {"secret": "text"}


@pytest.mark.parametrize(
    ("symbols", "code", "err"),
    [
        (
            ["t.S"],
            2,
            "USAGE--json-template: t.S is a service; name a method of it, such as t.S/Do.",
        ),
        (["t.None"], 2, "USAGE--json-template: t.None is a service; name a method of it."),
        (["t.S/Doo"], 1, "no method 't.S/Doo' in the schema; did you mean 't.S/Do'?"),
        (["t.Tre"], 1, "no message type 't.Tre' in the schema; did you mean 't.Tree'?"),
        (["t.Colour"], 1, "no message type 't.Colour' in the schema"),
    ],
)
def test_what_has_no_json_template(
    symbols: list[str],
    code: int,
    err: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is of a method or a message; what to name is said."""
    (tmp_path / "t.proto").write_text(TEMPLATES)
    usage = (
        "Usage: dynserve describe [OPTIONS] ADDR|SOURCE [SYMBOL]...\n"
        "Try 'dynserve describe --help' for help.\n\n"
    )
    shown = f"{usage}Error: {err[5:]}\n" if err.startswith("USAGE") else f"Error: {err}\n"
    assert said(capsys, str(tmp_path), *symbols, "--json-template") == (code, "", shown)


# ---- colours


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_on_a_terminal(no_color: str, protos: Path) -> None:
    """A terminal gets them, unless NO_COLOR is set; the text is the same, line by line."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "dynserve", "describe", str(protos / "lab.proto"), "lab.Item"],
        stdout=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "20", "NO_COLOR": no_color},
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
        except OSError:  # Linux says EIO at the end
            pass
        finally:
            os.close(ours)
        assert process.wait(30) == 0
    text = shown.decode().replace("\r\n", "\n")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert plain == ITEM
    assert (plain == text) == bool(no_color)
