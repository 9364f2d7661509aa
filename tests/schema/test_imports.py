"""dynserve.schema.imports: which file every import means, and the name of every file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dynserve import CompileError, Schema, SourceError
from dynserve.schema.imports import builtin_roots, find_root, imports_of

from .conftest import Tree

P3 = 'syntax = "proto3";\n'


def importing(*names: str, package: str = "") -> str:
    """A file that imports the names and defines nothing."""
    head = f"package {package};\n" if package else ""
    return P3 + head + "".join(f'import "{name}";\n' for name in names)


def files(*sources: str | Path, include: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """The files asked for, and all files, sorted."""
    schema = Schema.load(*sources, include=include)
    schema.build()
    return sorted(schema.declared_files), sorted(schema.index.files)


def test_several_roots_are_searched_in_order(tree: Tree) -> None:
    """With include, an import is the first root's that has it, as with protoc's -I."""
    tree(
        {
            "one/main.proto": importing("x.proto", "y.proto"),
            "one/x.proto": P3 + "message FromOne {}",
            "two/x.proto": P3 + "message FromTwo {}",
            "two/y.proto": P3 + "message Y {}",
        }
    )
    schema = Schema.load("one/main.proto", include=["one", "two"])
    assert list(schema.index.symbols()) == ["FromOne", "Y"]
    assert schema.declared_files == ("main.proto",)
    schema = Schema.load("one/main.proto", include=["two", "one"])
    assert list(schema.index.symbols()) == ["FromTwo", "Y"]


@pytest.mark.parametrize(
    ("sources", "layout", "declared"),
    [
        # imports relative to the folder that was named
        (
            "protos",
            {"protos/a.proto": "lib/b.proto", "protos/lib/b.proto": ""},
            "a.proto lib/b.proto",
        ),
        # … to a folder above the file
        ("p/api/a.proto", {"p/api/a.proto": "api/b.proto", "p/api/b.proto": ""}, "api/a.proto"),
        # … to the file's own folder
        ("p/q/a.proto", {"p/q/a.proto": "b.proto", "p/q/b.proto": ""}, "a.proto"),
        # … to the working directory
        ("p/a.proto", {"p/a.proto": "p/b.proto", "p/b.proto": ""}, "p/a.proto"),
        # what is imported sets the name, however the file was asked for
        ("p/b.proto a.proto", {"a.proto": "p/b.proto", "p/b.proto": ""}, "a.proto p/b.proto"),
        # a nested root: the imported file's own imports are looked for from where it lies
        (
            "m.proto",
            {"m.proto": "v/x/a.proto", "v/x/a.proto": "x/b.proto", "v/x/b.proto": ""},
            "m.proto",
        ),
        # two files of one name in a folder that was named
        (".", {"a/x.proto": "", "b/x.proto": ""}, "a/x.proto b/x.proto"),
        ("*/x.proto", {"a/x.proto": "", "b/x.proto": ""}, "a/x.proto b/x.proto"),
    ],
)
def test_roots_are_inferred(
    tree: Tree, sources: str, layout: dict[str, str], declared: str
) -> None:
    """Without include, what a file is imported as is its name, and its place need not be said."""
    tree({path: importing(*name.split()) for path, name in layout.items()})
    found, every = files(*sources.split())
    assert found == declared.split()
    assert len(every) == len(layout)


def test_the_climb_ends_at_the_repository(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """No root is inferred above the working directory or the repository of the importing file."""
    folder = tree(
        {
            "outside.proto": P3,
            "repo/.git/HEAD": "",
            "repo/p/a.proto": importing("outside.proto"),
            "cwd/x": "",
        }
    )
    monkeypatch.chdir(folder / "cwd")
    with pytest.raises(CompileError) as caught:
        Schema.load(folder / "repo/p/a.proto")
    roots = [str(folder / "repo/p"), *map(str, builtin_roots())]
    assert str(caught.value) == (
        f'{folder}/repo/p/a.proto:2:1: Import "outside.proto" was not found or had errors.\n'
        '  2 | import "outside.proto";\n'
        "    | ^\n"
        f"  searched: {', '.join(roots)}"
    )


def test_nothing_is_inferred_below_an_include_root(tree: Tree) -> None:
    """A file that lies in a given root finds its imports in given roots only."""
    tree({"p/q/a.proto": importing("b.proto"), "p/q/b.proto": P3})
    with pytest.raises(CompileError):
        Schema.load("p/q/a.proto", include=["p"])
    assert files("p/q/a.proto", include=("p", "p/q")) == (["q/a.proto"], ["b.proto", "q/a.proto"])


@pytest.mark.parametrize(
    "name", ["etc/passwd", "/etc/passwd", "../../../../etc/passwd", "./a.proto", "a//b", "x" * 300]
)
def test_an_import_reaches_nothing_outside_its_roots(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No import, whatever it says, reads a file that no root has: the error is 'not found'."""
    path = tree({"a.proto": importing(name), "elsewhere/x": ""}) / "a.proto"
    monkeypatch.chdir("elsewhere")
    with pytest.raises(CompileError) as caught:
        Schema.load(path)
    last = caught.value.diagnostics[-1]
    assert last.message == f'Import "{name}" was not found or had errors.'
    assert "root:" not in str(caught.value)


def test_text_imports_from_the_working_directory(tree: Tree) -> None:
    """Inline text finds what it imports in the working directory and among the installed files."""
    tree({"lib/b.proto": P3})
    text = importing("lib/b.proto", "google/protobuf/any.proto", "google/api/http.proto")
    assert files(text)[1] == [
        "google/api/http.proto",
        "google/protobuf/any.proto",
        "inline_1.proto",
        "lib/b.proto",
    ]


def test_files_of_one_name_are_told_apart_or_refused(tree: Tree) -> None:
    """Two files that would have one name are an error with the way out, unless they are alike."""
    folder = tree({"a/x.proto": P3 + "message A {}", "b/x.proto": P3 + "message B {}"})
    with pytest.raises(SourceError) as caught:
        Schema.load("a/x.proto", "b/x.proto")
    assert str(caught.value) == (
        f"{folder}/b/x.proto: would be compiled as 'x.proto', and so would {folder}/a/x.proto;"
        " name the root that tells them apart (include=… or -I), or load them as two schemas"
    )
    assert files("a/x.proto", "b/x.proto", include=(".",))[0] == ["a/x.proto", "b/x.proto"]
    Path("b/x.proto").write_text(P3 + "message A {}")
    assert files("a/x.proto", "b/x.proto")[0] == ["x.proto"]


def test_text_and_a_file_of_its_name(tree: Tree) -> None:
    """A file that has the name which inline text goes by is refused too."""
    folder = tree({"inline_1.proto": P3 + "message A {}"})
    with pytest.raises(SourceError) as caught:
        Schema.load(P3 + "message B {}", "inline_1.proto")
    assert str(caught.value) == (
        f"{folder}/inline_1.proto: would be compiled as 'inline_1.proto', and so would"
        " inline_1.proto; name the root that tells them apart (include=… or -I), or load them as"
        " two schemas"
    )


def test_an_include_root_must_be_a_folder(tree: Tree) -> None:
    """A root that is missing or a file is an error, not a root in which nothing is found."""
    folder = tree({"a.proto": P3})
    with pytest.raises(SourceError) as caught:
        Schema.load("a.proto", include=["none"])
    assert str(caught.value) == f"{folder}/none: an include root must be a folder"


def test_a_name_that_is_not_unicode(tree: Tree) -> None:
    """A file name that is not UTF-8 cannot be a protobuf file's name, and the error says so."""
    folder = tree({})
    path = folder / "a\udcff.proto"
    path.write_text(P3)
    with pytest.raises(SourceError) as caught:
        Schema.load(path)
    assert str(caught.value) == f"{str(path)!r}: the file's name is not UTF-8"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b'import "a.proto"; import public "b"; import weak \'c\'; import option "d";', "abcd"),
        (b'import/**/"a"/* import "x"; */;// import "x";\nimport//\n"b";', "ab"),
        (b'option x = "import \\"x\\""; important "x"; reimport "x"; import "";', ""),
        (b'import publicity "x"; import', ""),
        (b'import "a" /* never closed import "x"', "a"),
        (b'\'unclosed import "x"\nimport "a"', "a"),
        (b'import "\xff"', "�"),
    ],
)
def test_imports_are_found_in_the_text(text: bytes, names: str) -> None:
    """Every way to write an import is found; comments and strings are not imports."""
    assert [name.removesuffix(".proto") for name in imports_of(text)] == list(names)


@pytest.mark.parametrize(
    "text",
    [
        b"import " + b"/**/" * 50_000,
        b"import /*" * 50_000,
        b"import " * 50_000,
        b"'\\" * 50_000,
        b'"' * 50_000,
        b"import" + b" " * 500_000,
        b"/*" * 50_000,
        b"import/**//**/" * 50_000,
    ],
)
def test_no_text_takes_long_to_search(text: bytes) -> None:
    """The search for imports takes time in proportion to the text, however odd that is."""
    began = time.perf_counter()
    assert imports_of(text) == []
    assert time.perf_counter() - began < 2


def test_the_root_that_would_have_helped(tree: Tree) -> None:
    """A folder that would make an import resolve is found, in no hidden place and by no trick."""
    folder = tree({"p/q/lib/b.proto": "", ".venv/lib/b.proto": "", "node_modules/lib/c.proto": ""})
    assert find_root("lib/b.proto", [folder]) == folder / "p/q"
    assert find_root("lib/c.proto", [folder]) is None
    assert find_root("../lib/b.proto", [folder]) is None


def test_the_search_for_that_root_is_bounded(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint is not worth a walk through a whole disk."""
    folder = tree({f"d{n}/x": "" for n in range(20)} | {"z/lib/b.proto": ""})
    monkeypatch.setattr("dynserve.schema.imports._MAX_SEARCHED", 10)
    assert find_root("lib/b.proto", [folder]) is None
