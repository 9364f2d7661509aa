"""dynserve.schema.hints: what a file with an error lacks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dynserve import CompileError, Schema
from dynserve.schema import hints
from dynserve.schema.hints import Hints
from dynserve.schema.imports import SourceTree, builtin_roots

from .conftest import Tree

P3 = 'syntax = "proto3";\n'


def of_name(name: str, *, own: str = "", **others: str) -> str:
    """The hint on a name that the file own.proto does not know."""
    texts = {f"{key}.proto": text.encode() for key, text in {"own": own, **others}.items()}
    return Hints(SourceTree(("own.proto",), texts, {}, ())).of_name(name, "own.proto")


def test_an_import_is_told_by_what_is_near(tree: Tree) -> None:
    """A mistyped import in an error has the name that was meant, and where was searched."""
    tree({"a.proto": P3 + 'import "common/typs.proto";\n', "common/types.proto": P3})
    with pytest.raises(CompileError) as caught:
        Schema.load("a.proto", cache=False)
    assert str(caught.value) == (
        'a.proto:2:1: Import "common/typs.proto" was not found.\n'
        '  2 | import "common/typs.proto";\n'
        "    | ^\n"
        '  did you mean "common/types.proto"?\n'
        "  searched: the working directory, the installed google/… files"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lib/typs.proto", 'did you mean "lib/types.proto"?\n'),
        ("lbi/types.proto", 'did you mean "lib/types.proto"?\n'),
        ("lib/types", 'did you mean "lib/types.proto"?\n'),
        ("Lib/Types.proto", 'did you mean "lib/types.proto"?\n'),
        ("google/protobuf/timestmp.proto", 'did you mean "google/protobuf/timestamp.proto"?\n'),
        ("lib/nothing.proto", ""),
        ("deep/er.proto", "{found}"),
        *(
            (name, "{odd}" + 'did you mean "lib/types.proto"?\n')
            for name in ("./lib/types.proto", "lib\\types.proto", "/lib/types.proto", "lib//types")
        ),
    ],
)
def test_near_files(tree: Tree, name: str, hint: str) -> None:
    """A file of the same folder or of the same name is suggested, and no other."""
    folder = tree({"lib/types.proto": P3, "src/deep/er.proto": P3, "a.proto": P3})
    source = SourceTree(("a.proto",), {"a.proto": b""}, {}, (str(folder), *builtin_roots()))
    odd = "an import names a file below a root: it has no '\\', '.', '..' or empty part\n"
    searched = "searched: the working directory, the installed google/… files"
    expected = hint.format(odd=odd, found="") + searched
    if hint == "{found}":
        expected += "\nthis import would resolve with `-I src`"
    assert Hints(source).of_import(name) == expected


OWN = P3 + "package my.pkg;\nmessage Item { message Part {} enum Kind { NONE = 0; } }\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        # a type of an installed file, by its full name, and by less
        ("google.protobuf.Timestamp", 'add import "google/protobuf/timestamp.proto";'),
        (".google.protobuf.Timestamp", 'add import "google/protobuf/timestamp.proto";'),
        ("google.protobuf.MethodOptions", 'add import "google/protobuf/descriptor.proto";'),
        (
            "google.protobuf.FieldOptions.CType",
            'add import "google/protobuf/descriptor.proto";',
        ),
        (
            "Timestamp",
            'did you mean "google.protobuf.Timestamp"?'
            ' add import "google/protobuf/timestamp.proto";',
        ),
        (
            "google.type.date",
            'did you mean "google.type.Date"? add import "google/type/date.proto";',
        ),
        (
            "datetime",
            'did you mean "google.protobuf.Timestamp"?'
            ' add import "google/protobuf/timestamp.proto";',
        ),
        # an option
        ("(google.api.http)", 'add import "google/api/annotations.proto";'),
        ("(google.api.htp)", ""),
        # another file of the tree
        ("other.Thing", 'add import "other.proto";'),
        ("other.Thin", 'did you mean "other.Thing"? add import "other.proto";'),
        ("Thing", 'did you mean "other.Thing"? add import "other.proto";'),
        ("imported.Stff", 'did you mean "imported.Stuff"?'),
        ("Neighbour", 'add import "same.proto";'),
        ("pkg.Neighbour", 'add import "same.proto";'),
        ("Nieghbour", 'did you mean "Neighbour"? add import "same.proto";'),
        # the same file
        ("Itm", 'did you mean "Item"?'),
        ("Item.Prt", 'did you mean "Item.Part" or "Item"?'),
        ("my.pkg.Itm", ""),
        # scalars, also by the names of other languages
        ("strng", 'did you mean "string"?'),
        ("String", 'did you mean "string"?'),
        ("int", 'did you mean "int32"?'),
        ("integer", 'did you mean "int32"?'),
        ("float64", 'did you mean "double"?'),
        ("boolean", 'did you mean "bool"?'),
        ("Missing", ""),
        ("Unheard", ""),
        ("google.protobuf.Unheard", ""),
    ],
)
def test_names(name: str, hint: str) -> None:
    """A name that is not defined is told by the import that it needs, or by what is near."""
    assert hint == of_name(
        name,
        own=OWN + 'import "imported.proto";',
        other=P3 + "package other; message Thing {}",
        imported=P3 + "package imported; message Stuff {}",
        same=P3 + "package my.pkg; message Neighbour {}",
    )


def test_a_name_where_there_is_no_package() -> None:
    """Without a package a name is looked for as it is."""
    assert of_name("Itm", own="message Item {}") == 'did you mean "Item"?'
    assert of_name("Thing", own="", other="message Thing {}") == 'add import "other.proto";'
    assert of_name(
        "Thing", other='message M { string s = 1 [json_name = "{"]; } } message Thing {}'
    )


def test_what_only_looks_like_a_declaration() -> None:
    """Comments, strings and fields declare nothing."""
    text = '// message A {\n/* message B { */ option x = "message C {"; enum E { D = 0; }'
    for name in ("A", "B", "C", "D"):
        assert of_name(name, other=text) == ""
    assert of_name("E", other=text) == 'add import "other.proto";'


def test_an_extension_within_a_message() -> None:
    """An option that is declared inside of a message has that in its name."""
    text = "package p; message M { extend google.protobuf.FieldOptions { bool deep = 50000; } }"
    assert of_name("(p.M.deep)", other=text) == 'add import "other.proto";'


def test_hints_are_bounded(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> None:
    """After so many hints, so many names and so much text no more is looked for."""
    folder = tree({"b.proto": P3})
    monkeypatch.setattr(hints, "_MAX_HINTS", 1)
    monkeypatch.setattr(hints, "_MAX_COMPARED", 1)
    source = SourceTree(("own.proto",), {"own.proto": b""}, {}, (str(folder),))
    found = Hints(source)
    assert found.of_name("strng", "own.proto") == 'did you mean "string"?'
    assert found.of_name("integer", "own.proto") == ""
    assert found.of_name("strng", "own.proto") == 'did you mean "string"?'
    assert (
        found.of_import("a.proto")
        == "searched: the working directory, the installed google/… files"
    )
    assert found.of_import("c.proto") == ""
    assert found.of_import("c.proto") == ""
    assert found.is_apart("strng", [])
    assert not found.is_apart("integer", [])
    monkeypatch.setattr(hints, "_MAX_SCANNED", 30)
    assert of_name("Thing", other="message Thing {}") == 'add import "other.proto";'
    assert of_name("Thing", own="/" * 20, other="message Thing {}") == ""


@pytest.mark.parametrize(
    "text",
    [
        "x" * 500_000,
        "extend " * 50_000,
        "message" + " " * 500_000,
        "{" * 500_000,
        "message A {" * 50_000,
        "a = " * 99_999,
    ],
)
def test_no_text_takes_long_to_scan(text: str) -> None:
    """The search for declarations takes time in proportion to the text."""
    began = time.perf_counter()
    assert of_name("Unheard", other=text) == ""
    assert time.perf_counter() - began < 5


def test_a_place_outside_the_working_directory(tree: Tree, tmp_path: Path) -> None:
    """Roots elsewhere are shown in full."""
    tree({})
    source = SourceTree((), {}, {}, (str(tmp_path / "other"),))
    assert Hints(source).of_import("x.proto") == (
        f"searched: {tmp_path}/other, the installed google/… files"
    )
