"""The client against Node: grpc-js with the reflection of @grpc/reflection.

That reflection has one file for each package, made up by the server, and says of none what it
imports (https://github.com/grpc/grpc-node/issues/2595); options and comments are lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import google.rpc
import grpc
import pytest

from tests.real.callers import Outcome, Printed, Send, command
from tests.real.conftest import Connect, Start
from tests.running import ROOT

pytestmark = pytest.mark.real

HERE = ROOT / "tests" / "real"
GOOGLEAPIS = Path(next(iter(google.rpc.__path__))).parents[1]

LIBRARY = "library.Library"
GOETHE = {"name": "Johann Wolfgang von Goethe", "born": 1749}
WERTHER = {
    "isbn": "1",
    "title": "Die Leiden des jungen Werthers",
    "genre": "GENRE_NOVEL",
    "authors": [GOETHE],
    "published": "1774-09-17T00:00:00Z",
    "copies": {"north": 2, "south": 1},
    "print": {"pages": 224},
    "notes": {"epistolary": True, "places": ["Wetzlar", None]},
    "extra": {
        "@type": "type.googleapis.com/library.awards.Award",
        "name": "Bestseller",
        "giver": {"name": "Everybody"},
    },
    "edition": 0,
}
ELECTIVE_AFFINITIES = {
    "isbn": "2",
    "title": "Die Wahlverwandtschaften",
    "genre": "GENRE_NOVEL",
    "authors": [GOETHE],
    "published": "1808-12-31T00:00:00.500Z",
    "audio": "36000s",
}
ELEGIES = {"isbn": "3", "title": "Römische Elegien", "genre": "GENRE_POETRY"}

TRAILING: dict[str, str | bytes] = {
    "library-branch": "north",
    "library-shelf-bin": b"\x00\x01\xff",
}


@pytest.fixture
def library(
    tool: Callable[[str], str], folder: Callable[[str, str], Path], start: Start
) -> Callable[..., str]:
    """``library(*words)``: the address of ``servers/library.js``."""
    folder("NODE_PATH", "@grpc/reflection")
    server, protos = HERE / "servers" / "library.js", HERE / "protos"
    return lambda *words: start(tool("node"), str(server), str(protos), str(GOOGLEAPIS), *words)


@pytest.fixture
def address(library: Callable[..., str]) -> str:
    """The server, with both versions of reflection."""
    return library()


def test_services(connect: Connect, address: str) -> None:
    """The services are those that reflection lists."""
    assert connect(address).services() == (LIBRARY,)


@pytest.mark.parametrize("version", ["v1", "v1Alpha"])
def test_versions(connect: Connect, library: Callable[..., str], version: str) -> None:
    """A server may have either version of reflection."""
    caller = connect(library(version))
    assert caller.services() == (LIBRARY,)
    assert caller.call(f"{LIBRARY}/ListBooks", genre="GENRE_POETRY") == Outcome([ELEGIES])


def test_unary_unary(connect: Connect, address: str) -> None:
    """A response is whole, content of an Any that nothing imports included; so is metadata."""
    outcome = connect(address).call(f"{LIBRARY}/GetBook", isbn="1", metadata={"reader": "me"})
    assert outcome == Outcome([WERTHER], initial={"library-reader": "me"}, trailing=TRAILING)


def test_unary_stream(connect: Connect, address: str) -> None:
    """All responses come, in order; an enum is given by its name, a Timestamp as text."""
    caller = connect(address)
    novels = caller.call(f"{LIBRARY}/ListBooks", {"genre": "GENRE_NOVEL"})
    assert novels == Outcome([WERTHER, ELECTIVE_AFFINITIES])
    later = {"genre": 1, "published_after": "1800-01-01T00:00:00Z"}
    assert caller.call(f"{LIBRARY}/ListBooks", later) == Outcome([ELECTIVE_AFFINITIES])
    assert caller.call(f"{LIBRARY}/ListBooks", genre="GENRE_POETRY") == Outcome([ELEGIES])


def test_stream_unary(connect: Connect, address: str) -> None:
    """Requests of a stream arrive as they were given: maps, oneofs, structs, durations."""
    books = [
        {"copies": {"north": 1}, "print": {"pages": 5}},
        {
            "authors": [{"name": "A"}, {"name": "B", "born": 1900}],
            "published": "2001-02-03T04:05:06.789Z",
            "copies": {"north": 2, "west": 3},
            "audio": "1.500s",
            "notes": {"a": [1, True, None, "x", {"b": {}}]},
            "edition": 0,
        },
    ]
    outcome = connect(address).call(f"{LIBRARY}/Donate", books)
    donation = {"count": 2, "copies": {"north": 3, "west": 3}, "last": books[1]}
    assert outcome == Outcome([donation])
    assert connect(address).call(f"{LIBRARY}/Donate", []) == Outcome([{}])


def test_stream_stream(connect: Connect, address: str) -> None:
    """Each request is answered before the next one is sent."""
    outcome = connect(address).converse(
        f"{LIBRARY}/Talk", Send({"text": "Open"}), Send({"text": "Free"})
    )
    answers = [{"text": "Open? Yes.", "number": "1"}, {"text": "Free? Yes.", "number": "2"}]
    assert outcome == Outcome(answers)


def test_compression(connect: Connect, address: str) -> None:
    """Requests are compressed for a server that takes it."""
    caller = connect(address, compression=grpc.Compression.Gzip)
    book = {"title": "x" * 10_000}
    assert caller.call(f"{LIBRARY}/Donate", [book]) == Outcome([{"count": 1, "last": book}])


def test_error_with_details(connect: Connect, address: str) -> None:
    """An error has its text, its metadata, and its details as messages, where they are known."""
    outcome = connect(address).call(f"{LIBRARY}/GetBook", isbn="ü")
    assert outcome == Outcome(
        code="NOT_FOUND",
        text="no book has the ISBN 'ü'",
        details=[
            (
                "google.rpc.ErrorInfo",
                {"reason": "NO_SUCH_BOOK", "domain": "library.example", "metadata": {"isbn": "ü"}},
            ),
            (
                "google.rpc.BadRequest",
                {"fieldViolations": [{"field": "isbn", "description": "is of no book"}]},
            ),
            ("library.Question", {"text": "Is it '1'?"}),
            ("google.protobuf.Any", ("type.googleapis.com/secret.Thing", b"\x08\x01")),
        ],
        initial={"library-reader": "nobody"},
        trailing=TRAILING,
    )


def test_error_in_a_stream(connect: Connect, address: str) -> None:
    """An error comes after the responses that were sent before it."""
    outcome = connect(address).call(f"{LIBRARY}/Talk", [{"text": "Open"}, {}])
    open_ = {"text": "Open? Yes.", "number": "1"}
    assert outcome == Outcome([open_], "INVALID_ARGUMENT", "question 2 is empty")


def test_list_command(address: str) -> None:
    """``dynserve list`` prints the services, and the methods of one."""
    assert command("list", address) == Printed(0, f"{LIBRARY}\n", "")
    methods = "".join(f"{LIBRARY}/{name}\n" for name in ("GetBook", "ListBooks", "Donate", "Talk"))
    assert command("list", address, LIBRARY) == Printed(0, methods, "")


def test_describe_command(address: str) -> None:
    """``dynserve describe`` prints what the server's reflection has not lost."""
    printed = command("describe", address, "library.Book", "people.Person", f"{LIBRARY}.Talk")
    assert printed == Printed(
        0,
        """\
// library.Book, in library.proto

message Book {
  string isbn = 1;
  string title = 2;
  library.Genre genre = 3;
  repeated people.Person authors = 4;
  google.protobuf.Timestamp published = 5;
  map<string, int32> copies = 6;

  oneof medium {
    library.Book.Print print = 7;
    google.protobuf.Duration audio = 8;
  }

  google.protobuf.Struct notes = 9;
  google.protobuf.Any extra = 10;

  oneof _edition {
    int32 edition = 11;
  }

  message Print {
    int32 pages = 1;
  }
}

// people.Person, in people.proto

message Person {
  string name = 1;
  int32 born = 2;
}

// library.Library.Talk, in library.proto

rpc Talk(stream library.Question) returns (stream library.Answer);
""",
        "",
    )


@pytest.mark.parametrize(
    ("method", "words", "printed"),
    [
        (
            "GetBook",
            ["-d", '{"isbn": "3"}'],
            Printed(0, '{"isbn": "3", "title": "Römische Elegien", "genre": "GENRE_POETRY"}\n', ""),
        ),
        (
            "ListBooks",
            ["-d", '{"genre": "GENRE_NOVEL", "publishedAfter": "1800-01-01T00:00:00Z"}'],
            Printed(
                0,
                '{"isbn": "2", "title": "Die Wahlverwandtschaften", "genre": "GENRE_NOVEL",'
                ' "authors": [{"name": "Johann Wolfgang von Goethe", "born": 1749}],'
                ' "published": "1808-12-31T00:00:00.500Z", "audio": "36000s"}\n',
                "",
            ),
        ),
        (
            "Donate",
            ["--indent", "-d", '{} {"notes": {"a": [1.5]}}'],
            Printed(
                0,
                """\
{
  "count": 2,
  "last": {
    "notes": {
      "a": [
        1.5
      ]
    }
  }
}
""",
                "",
            ),
        ),
        (
            "Talk",
            ["-d", '{"text": "Open"}\n{}'],
            Printed(
                64 + 3,
                '{"text": "Open? Yes.", "number": "1"}\n',
                "Error: INVALID_ARGUMENT: question 2 is empty\n",
            ),
        ),
    ],
    ids=["unary-unary", "unary-stream", "stream-unary", "stream-stream"],
)
def test_call_command(address: str, method: str, words: list[str], printed: Printed) -> None:
    """``dynserve call`` prints responses, and exits with the status."""
    assert command("call", address, f"{LIBRARY}/{method}", *words) == printed


def test_call_command_with_any(address: str) -> None:
    """A request may hold an Any of a type that only the server knows."""
    data = '{"extra": {"@type": "type.googleapis.com/library.awards.Award", "name": "x"}}'
    printed = command("call", address, f"{LIBRARY}/Donate", "-d", data)
    assert printed == Printed(0, f'{{"count": 1, "last": {data}}}\n', "")


def test_call_command_with_details(address: str) -> None:
    """The details of an error are printed below it."""
    printed = command("call", address, f"{LIBRARY}/GetBook", "-d", '{"isbn": "9"}')
    assert printed == Printed(
        64 + 5,
        "",
        """\
Error: NOT_FOUND: no book has the ISBN '9'
  google.rpc.ErrorInfo: {"reason": "NO_SUCH_BOOK", "domain": "library.example", "metadata": {"isbn": "9"}}
  google.rpc.BadRequest: {"fieldViolations": [{"field": "isbn", "description": "is of no book"}]}
  library.Question: {"text": "Is it '1'?"}
  google.protobuf.Any: type_url: "type.googleapis.com/secret.Thing" value: "\\010\\001"
""",  # noqa: E501 - as it is printed
    )


def test_export_command(connect: Connect, address: str, tmp_path: Path) -> None:
    """What is exported compiles, and serves in place of reflection."""
    folder, descriptors = tmp_path / "protos", tmp_path / "set.binpb"
    assert command("export", address, "--proto-dir", folder, "-o", descriptors).code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["library.proto", "people.proto"]
    assert command("check", folder).code == 0
    for source in (folder, descriptors):
        outcome = connect(address, source).call(f"{LIBRARY}/ListBooks", genre="GENRE_POETRY")
        assert outcome == Outcome([ELEGIES])
