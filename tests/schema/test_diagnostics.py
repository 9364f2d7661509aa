"""dynserve.schema.diagnostics: what protoc says, without its echoes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dynserve import CompileError, Schema
from dynserve.schema import diagnostics
from dynserve.schema.diagnostics import parse
from dynserve.schema.imports import SourceTree

from .conftest import Tree

P3 = 'syntax = "proto3";\n'
SEARCHED = "  searched: the working directory, the installed google/… files"


def error_of(*sources: str, include: tuple[str, ...] = ()) -> str:
    """The text of the error that loading the sources gives."""
    with pytest.raises(CompileError) as caught:
        Schema.load(*sources, include=include, cache=False)
    return str(caught.value)


def said(text: str, **texts: str) -> list[str]:
    """What becomes of protoc's words on these files."""
    encoded = {f"{name}.proto": body.encode() for name, body in texts.items()}
    return [str(found) for found in parse(text, SourceTree(tuple(encoded), encoded, {}, ()))]


def test_what_follows_from_an_import_that_is_not_found(tree: Tree) -> None:
    """Names that the missing file may define are not reported; every other error is."""
    tree(
        {
            "a.proto": P3
            + 'import "no.proto";\n'
            + "message A {\n  B b = 1;\n  common.T t = 2;\n  .common.T u = 3;\n"
            + "  strng s = 4;\n  google.protobuf.Any any = 5;\n  int32 b = 6;\n}\n"
            + "extend common.T { string s = 1 [(common.x) = 1]; }\n"
        }
    )
    assert error_of("a.proto") == (
        'a.proto:2:1: Import "no.proto" was not found.\n'
        '  2 | import "no.proto";\n'
        "    | ^\n"
        f"{SEARCHED}\n"
        'a.proto:9:9: "b" is already defined in "A".\n'
        "  9 |   int32 b = 6;\n"
        "    |         ^\n"
        'a.proto:7:3: "strng" is not defined.\n'
        "  7 |   strng s = 4;\n"
        "    |   ^\n"
        '  did you mean "string"?\n'
        'a.proto:8:3: "google.protobuf.Any" is not defined.\n'
        "  8 |   google.protobuf.Any any = 5;\n"
        "    |   ^\n"
        '  add import "google/protobuf/any.proto";'
    )


def test_what_follows_from_a_mistyped_import_of_an_installed_file(tree: Tree) -> None:
    """The one thing that is wrong is the one thing that is said."""
    tree(
        {
            "a.proto": P3
            + 'import "google/protobuf/timestmp.proto";\n'
            + "message A { google.protobuf.Timestamp at = 1; }\n"
        }
    )
    assert error_of("a.proto") == (
        'a.proto:2:1: Import "google/protobuf/timestmp.proto" was not found.\n'
        '  2 | import "google/protobuf/timestmp.proto";\n'
        "    | ^\n"
        '  did you mean "google/protobuf/timestamp.proto"?\n'
        f"{SEARCHED}"
    )


def test_what_follows_in_the_files_that_import_it(tree: Tree) -> None:
    """An import that is missing far below is reported there, and nowhere else."""
    tree(
        {
            "a.proto": P3 + 'import "b.proto";\nmessage A { B b = 1; X x = 2; }\n',
            "b.proto": P3 + 'import "no.proto";\nmessage B { X x = 1; }\n',
        }
    )
    expected = (
        'b.proto:2:1: Import "no.proto" was not found.\n'
        '  2 | import "no.proto";\n'
        "    | ^\n"
        f"{SEARCHED}"
    )
    assert error_of("a.proto") == error_of("a.proto", "b.proto") == expected


def test_what_follows_from_errors_in_an_import(tree: Tree) -> None:
    """Names that an imported file would define, were it not for its errors, are not reported."""
    tree(
        {
            "a.proto": P3 + 'import "b.proto";\nmessage A { B b = 1; }\n',
            "b.proto": P3 + "message B { int32 = 1; }\n",
        }
    )
    assert error_of(".") == (
        'b.proto:2:19: Expected field name.\n  2 | message B { int32 = 1; }\n'
        "    |                   ^"
    )  # fmt: skip


def test_an_import_with_errors_that_are_not_shown() -> None:
    """Where protoc does not say what is wrong with an import, its own words stay."""
    failed = 'a.proto:1:1: Import "b.proto" was not found or had errors.\n'
    assert said(failed, a="import 'b.proto';", b="") == [
        'a.proto:1:1: Import "b.proto" was not found or had errors.\n'
        "  1 | import 'b.proto';\n    | ^"
    ]


def test_there_is_no_failure_without_an_error() -> None:
    """Were everything an echo of something else, everything would be shown."""
    words = 'a.proto:1:1: Import "a.proto" was not found or had errors.\n'
    assert said(words, a="") == ['a.proto:1:1: Import "a.proto" was not found or had errors.']


def test_a_file_without_a_syntax_line(tree: Tree) -> None:
    """proto3 without its first line is told so, once."""
    tree({"a.proto": "message A { string s = 1;\nstring t = 2; }\n"})
    message = 'Expected "required", "optional", or "repeated".'
    assert error_of("a.proto") == (
        f"a.proto:1:13: {message}\n"
        "  1 | message A { string s = 1;\n"
        "    |             ^\n"
        '  without a syntax line a file is proto2; does it lack `syntax = "proto3";`?\n'
        f"a.proto:2:1: {message}\n"
        "  2 | string t = 2; }\n"
        "    | ^"
    )
    Path("a.proto").write_text('syntax = "proto2";\nmessage A { string s = 1; }\n')
    assert error_of("a.proto") == (
        f"a.proto:2:13: {message}\n  2 | message A {{ string s = 1; }}\n    |             ^"
    )


def test_one_file_by_two_names(tree: Tree) -> None:
    """A file that is imported by two names is defined twice, and the hint tells why."""
    tree(
        {
            "a.proto": P3 + 'import "p/b.proto";\nimport "p/c.proto";\n',
            "p/b.proto": P3 + "message B {}\n",
            "p/c.proto": P3 + 'import "b.proto";\nmessage C { B b = 1; }\n',
        }
    )
    assert error_of("a.proto").split("\n")[:4] == [
        'p/b.proto:2:9: "B" is already defined in file "p/b.proto".',
        "  2 | message B {}",
        "    |         ^",
        '  it is one file that is imported as "p/b.proto" and "b.proto"; import it by one name',
    ]


def test_the_source_of_what_is_no_proto_file(tree: Tree) -> None:
    """An import can mean any file below a root; the content of such a file is not shown."""
    tree({"a.proto": P3 + 'import ".env";\n', ".env": "PASSWORD=secret\n"})
    assert error_of("a.proto") == ('.env:1:1: Expected top-level statement (e.g. "message").')


def test_many_errors_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minified file with an error in every word takes neither memory nor time without end."""
    text = P3 + "X x=1; " * 50_000
    began = time.perf_counter()
    with pytest.raises(CompileError) as caught:
        Schema.load(text, cache=False)
    assert time.perf_counter() - began < 20
    found = caught.value.diagnostics
    assert len(found) == 1001
    assert str(found[-1]) == "protoc: errors that are not shown: 49000"
    assert len({id(diagnostic.source_line) for diagnostic in found}) == 2


def test_a_name_without_end() -> None:
    """A name that is full of what looks like positions is read once, not once for each of them."""
    name = ":1:1: " * 100_000
    began = time.perf_counter()
    with pytest.raises(CompileError) as caught:
        Schema.load(P3 + f'import "{name}";\n', cache=False)
    assert time.perf_counter() - began < 10
    assert [d.message for d in caught.value.diagnostics] == [f'Import "{name}" was not found.']


def test_many_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are counted by themselves, and what stands for the rest is a warning too."""
    monkeypatch.setattr(diagnostics, "_MAX_SHOWN", 1)
    words = [f"a.proto:1:{n}: warning: w{n}" for n in range(1, 4)]
    assert said("\n".join([*words, "a.proto:1:1: error"]), a="") == [
        "a.proto:1:1: warning: w1",
        "a.proto:1:1: error",
        "protoc: warning: warnings that are not shown: 2",
    ]


@pytest.mark.parametrize(
    ("line", "column", "expected"),
    [
        ("", 5, 5),
        ("abc", 1, 1),
        ("abc", 3, 3),
        ("abc", 9, 4),
        ("éb", 3, 2),
        ("\tb", 9, 2),
        ("\tb", 3, 2),  # within the tab
        ("a\tb\tc", 17, 5),
        ("\t\t", 99, 3),
    ],
)
def test_columns(line: str, column: int, expected: int) -> None:
    """protoc counts bytes, and a tab as far as the next multiple of eight."""
    assert diagnostics._characters(line.encode(), column) == expected


def test_what_text_imports_is_searched_in_the_working_directory(tree: Tree) -> None:
    """The error of an inline text says where was searched for what it imports."""
    tree({})
    assert error_of(P3 + 'import "no.proto";\n') == (
        'inline_1.proto:2:1: Import "no.proto" was not found.\n'
        '  2 | import "no.proto";\n'
        "    | ^\n"
        f"{SEARCHED}"
    )


def test_words_that_are_no_diagnostic() -> None:
    """What cannot be told to be of a file, a row beyond it included, is kept as it is."""
    assert said("trouble\nelse: trouble\n\na.proto:9:1: beyond", a="x") == [
        "protoc: trouble",
        "else: trouble",
        "a.proto:9:1: beyond",
    ]
