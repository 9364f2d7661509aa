"""dynserve.schema.imports: which file every import means, and the name of every file."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynserve import CompileError, Schema, SourceError
from dynserve.schema import imports, sources
from dynserve.schema.evidence import Evidence
from dynserve.schema.imports import find_root, imports_of, names_below
from dynserve.schema.sources import ProtoSource

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
    assert str(caught.value) == (
        f'{folder}/repo/p/a.proto:2:1: Import "outside.proto" was not found.\n'
        '  2 | import "outside.proto";\n'
        "    | ^\n"
        f"  searched: {folder}/repo/p, {folder}/repo, the installed google/… files"
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
    [diagnostic] = caught.value.diagnostics
    assert diagnostic.message == f'Import "{name}" was not found.'
    assert "root:x:" not in str(caught.value)


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
        # strings side by side are one, and an escape stands for its character, as for protoc
        (b'import "" /* x */ "" \'a\' // b\n ".proto"; import "b', "a"),
        (
            rb"import '\x61.proto'; import 'b\056pr\'oto'; import '\?'; import 'c' 'd",
            ["a", "b.pr'oto", "?", "c"],
        ),
        (b'\xef\xbb\xbfimport "a";\r\nimport\r\n"b";', "ab"),
    ],
)
def test_imports_are_found_in_the_text(text: bytes, names: str) -> None:
    """Every way to write an import is found; comments and strings are not imports."""
    assert [name.removesuffix(".proto") for name in imports_of(text)] == list(names)


def test_the_search_ends_behind_the_last_import() -> None:
    """Most of a file comes after its imports, which are few: the rest is not looked at."""
    text = b'syntax = "proto3"; import "a";' + b' option x = "y";' * 1_000_000
    began = time.process_time()
    assert imports_of(text) == ["a"]
    assert imports_of(text[30:]) == []
    assert time.process_time() - began < 0.2


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
        b"import" + b"/***" * 50_000,
        b"import//" + b"*/" * 50_000,
        b'import "' + b"\\x" * 200_000,
        b'import "" ' + b"''" * 50_000,
        b'import ""' + b" " * 500_000 + b"'",
        b"import" + b"*" * 500_000 + b"/*" + b"*" * 500_000,
    ],
)
def test_no_text_takes_long_to_search(text: bytes) -> None:
    """The search for imports takes time in proportion to the text, however odd that is."""
    began = time.perf_counter()
    assert imports_of(text) == []
    assert time.perf_counter() - began < 2


def words_of(text: str) -> Iterator[str]:
    """The words of a text, strings with a quote in front, by looking at each character."""
    at = 0
    while at < len(text):
        end = at + 1
        if text.startswith("//", at):
            end = (text + "\n").index("\n", at)
        elif text.startswith("/*", at):
            end = text.find("*/", at + 2) + 2
            end = len(text) if end < 2 else end
        elif text[at] in "\"'":
            while text[end : end + 1] not in ("", "\n", text[at]):
                escape = text[end] == "\\" and text[end + 1 : end + 2] not in ("", "\n")
                end += 2 if escape else 1
                if text[end - 1] == "\\" and not escape:
                    break
            closed = text[end : end + 1] == text[at]
            yield '"' + text[at + 1 : end] if closed else "?"
            end += closed
        elif text[at].isalpha():
            while text[end : end + 1].isalpha():
                end += 1
            yield text[at:end]
        elif not text[at].isspace():
            yield "?"
        at = end


def naive_imports_of(text: str) -> list[str]:
    """The imports of a text, told from its words."""
    words = list(words_of(text))
    found = []
    for place, word in enumerate(words):
        rest = words[place + 1 :]
        if rest and rest[0] in ("public", "weak", "option"):
            del rest[0]
        if word == "import":
            strings = itertools.takewhile(lambda word: word.startswith('"'), rest)
            found.append("".join(string[1:] for string in strings).replace("\\", ""))
    return [name for name in found if name]


PIECES = [
    "import",
    " ",
    "\n",
    "//",
    "/*",
    "*/",
    "*",
    "/",
    '"',
    "'",
    "\\",
    "a",
    "public",
    ";",
    "weak ",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_imports_are_those_a_tokenizer_finds(text: str) -> None:
    """However comments, strings and words mix, the search agrees with a plain tokenizer."""
    found = [name.replace("\\", "") for name in imports_of(text.encode())]
    assert [name for name in found if name] == naive_imports_of(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join))
def test_no_mix_takes_long_to_search(unit: str) -> None:
    """Whatever is repeated, the time for it grows no faster than the text."""
    began = time.process_time()
    imports_of(unit.encode() * 20_000)
    assert time.process_time() - began < 2


def test_one_import_is_one_file(tree: Tree) -> None:
    """An import that means one file here and another there is an error, unless they are alike."""
    folder = tree(
        {
            "a/m.proto": importing("lib.proto"),
            "b/n.proto": importing("lib.proto"),
            "a/lib.proto": P3 + "message A {}",
            "b/lib.proto": P3 + "message B {}",
        }
    )
    with pytest.raises(SourceError) as caught:
        Schema.load("a/m.proto", "b/n.proto")
    assert str(caught.value) == (
        f"{folder}/b/n.proto: imports {folder}/b/lib.proto as 'lib.proto', and so is"
        f" {folder}/a/lib.proto; name the root that tells them apart (include=… or -I), or load"
        " them as two schemas"
    )
    assert files("a/m.proto", "b/n.proto", include=("a",))[1] == [
        "lib.proto",
        "m.proto",
        "n.proto",
    ]
    Path("b/lib.proto").write_text(P3 + "message A {}")
    assert files("a/m.proto", "b/n.proto") == (
        ["m.proto", "n.proto"],
        ["lib.proto", "m.proto", "n.proto"],
    )


def test_text_that_imports_another_file_of_a_name(tree: Tree) -> None:
    """The error names the inline text where that is what imports the second file."""
    folder = tree(
        {"lib.proto": P3, "b/n.proto": importing("lib.proto"), "b/lib.proto": P3 + "message B {}"}
    )
    with pytest.raises(SourceError) as caught:
        Schema.load("b/n.proto", importing("lib.proto"))
    assert str(caught.value) == (
        f"inline_2.proto: imports {folder}/lib.proto as 'lib.proto', and so is"
        f" {folder}/b/lib.proto; name the root that tells them apart (include=… or -I), or load"
        " them as two schemas"
    )


@pytest.mark.parametrize("order", [("a/a.proto", "own/b.proto"), ("own/b.proto", "a/a.proto")])
def test_an_own_copy_of_an_installed_file_counts(tree: Tree, order: tuple[str, str]) -> None:
    """Where some files find an installed file and others a copy beside them, the copy is taken."""
    copy = 'syntax = "proto3"; package google.rpc; import "own.proto"; message Own {}'
    tree(
        {
            "a/a.proto": importing("google/rpc/code.proto"),
            "own/b.proto": importing("google/rpc/code.proto"),
            "own/google/rpc/code.proto": copy,
            "own/own.proto": P3,
        }
    )
    schema = Schema.load(*order, cache=False)
    assert sorted(schema.index.files) == [
        "a.proto",
        "b.proto",
        "google/rpc/code.proto",
        "own.proto",
    ]
    assert list(schema.index.symbols()) == ["google.rpc.Own"]


def test_the_climb_ends_at_a_folder_of_everyone(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No import is taken from a folder such as /tmp, unless the importing file is in it."""
    folder = tree(
        {"x.proto": P3, "p/a.proto": importing("x.proto"), "b.proto": importing("x.proto")}
    )
    (folder / "cwd").mkdir()
    folder.chmod(0o1777)
    assert files("p/a.proto")[1] == ["p/a.proto", "x.proto"]  # the working directory is one's own
    monkeypatch.chdir("cwd")
    assert files("../b.proto")[1] == ["b.proto", "x.proto"]
    with pytest.raises(CompileError):
        Schema.load("../p/a.proto")
    folder.chmod(0o777)
    assert files("../p/a.proto")[1] == ["p/a.proto", "x.proto"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_a_file_that_is_utf_16(tree: Tree, encoding: str) -> None:
    """What a Windows shell writes is told from a file full of control characters."""
    path = tree({}) / "a.proto"
    path.write_bytes(("\ufeff" * (encoding != "utf-16") + P3).encode(encoding))
    with pytest.raises(SourceError) as caught:
        Schema.load("a.proto")
    assert str(caught.value) == f"{path}: is UTF-16; save it as UTF-8"


def test_a_file_with_a_byte_order_mark(tree: Tree) -> None:
    """UTF-8's own mark and line ends of Windows are as good as none."""
    path = tree({"b.proto": P3}) / "a.proto"
    path.write_bytes(b"\xef\xbb\xbf" + importing("b.proto").replace("\n", "\r\n").encode())
    assert files("a.proto") == (["a.proto"], ["a.proto", "b.proto"])


def test_a_large_tree_is_read_once(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many files import it, a file is looked for once a folder and read once."""
    layout = {f"d{n % 3}/f{n}.proto": importing("lib.proto") for n in range(30)}
    tree(layout | {"lib.proto": P3, "d1/lib.proto": P3})
    reads: list[str] = []
    tried: list[str] = []
    real = sources.read

    def read(path: str) -> bytes:
        reads.append(path)
        return real(path)

    class Looking(Evidence):
        def uses(self, path: str) -> None:
            """It is read, which is counted there."""

        def is_file(self, path: str) -> bool:
            tried.append(path)
            return super().is_file(path)

    monkeypatch.setattr(imports, "read", read)
    protos = [ProtoSource(os.path.abspath(name)) for name in layout]
    found = imports.resolve(protos, [], Looking())
    assert len(found.texts) == 31
    assert len(reads) == len(set(reads)) == 32
    assert len(tried) == 5  # two folders up to the working directory, one at once


def test_the_root_that_would_have_helped(tree: Tree) -> None:
    """A folder that would make an import resolve is found, in no hidden place and by no trick."""
    folder = str(
        tree({"p/q/lib/b.proto": "", ".venv/lib/b.proto": "", "node_modules/lib/c.proto": ""})
    )
    assert find_root("lib/b.proto", [folder]) == f"{folder}/p/q"
    assert find_root("lib/c.proto", [folder]) is None
    assert find_root("../lib/b.proto", [folder]) is None
    assert names_below([folder, f"{folder}/p/q"]) == ["p/q/lib/b.proto", "lib/b.proto"]
    assert "google/protobuf/any.proto" in names_below(imports.builtin_roots())


def test_the_search_for_that_root_is_bounded(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint is not worth a walk through a whole disk."""
    folder = str(tree({f"d{n}/x": "" for n in range(20)} | {"z/lib/b.proto": ""}))
    monkeypatch.setattr("dynserve.schema.imports._MAX_SEARCHED", 10)
    assert find_root("lib/b.proto", [folder]) is None
    assert names_below([folder]) == []


def test_without_installed_protos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither grpcio-tools nor the common protos are installed, there are no such roots."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert imports.builtin_roots.__wrapped__() == ()
