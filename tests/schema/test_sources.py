"""dynserve.schema.sources: what can be loaded, told apart and found."""

from __future__ import annotations

import gzip
import importlib
import os
import socket
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2

from dynserve import DescriptorError, Schema, SourceError
from dynserve.schema import sources

from .conftest import Tree

P3 = 'syntax = "proto3";\n'
ONE = P3 + "package one;\nmessage One { int32 n = 1; }\n"
TWO = P3 + "package two;\nmessage Two { int32 n = 1; }\n"


def compiled(text: str, name: str = "set.proto") -> bytes:
    """The descriptor set of one file."""
    file = descriptor_pb2.FileDescriptorProto.FromString(
        Schema.load(text).index.stripped("inline_1.proto")
    )
    file.name = name
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def loaded(*given: Any, **options: Any) -> tuple[str, ...]:
    """The files that were asked for, all of which can be built."""
    schema = Schema.load(*given, **options)
    schema.build()
    return schema.declared_files


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.proto", ("a.proto",)),
        (Path("a.proto"), ("a.proto",)),
        ("./sub/../a.proto", ("a.proto",)),
        (".", ("a.proto", "sub/b.proto", "sub/deep/a.proto")),
        ("sub", ("b.proto", "deep/a.proto")),
        ("*.proto", ("a.proto",)),
        ("**/*.proto", ("a.proto", "sub/b.proto", "sub/deep/a.proto")),
        ("s*", ("b.proto", "deep/a.proto")),
        ("sub/*/a.proto", ("deep/a.proto",)),
        ("[a].proto", ("[a].proto",)),
        ("**", ("a.proto", "sub/b.proto", "sub/deep/a.proto")),
        ("./sub//", ("b.proto", "deep/a.proto")),
    ],
)
def test_paths_folders_and_globs(tree: Tree, source: str | Path, expected: tuple[str, ...]) -> None:
    """A path, a folder or a glob stands for the .proto files it names, hidden folders aside."""
    files = {"a.proto": ONE, "sub/b.proto": TWO, "sub/deep/a.proto": P3, ".git/c.proto": "no"}
    tree(files | ({"[a].proto": P3} if source == "[a].proto" else {}))
    assert loaded(source) == expected


def test_what_is_in_a_folder_stays_together(tree: Tree) -> None:
    """Files are sorted folder by folder: 'a-b' does not come between 'a' and what is in it."""
    tree({"a-b/x.proto": P3, "a/y.proto": P3, "a.proto": P3})
    assert loaded(".") == ("a/y.proto", "a-b/x.proto", "a.proto")


def test_a_path_is_looked_up_in_the_search_folders_too(tree: Tree, tmp_path: Path) -> None:
    """A relative path that the working directory does not have is taken from a search folder."""
    tree({})
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "a.proto").write_text(ONE)
    assert loaded("a.proto", search=[tmp_path / "plugin"]) == ("a.proto",)
    assert loaded("*.proto", search=[tmp_path / "plugin"]) == ("a.proto",)
    assert loaded("a.proto", search=[f"{tmp_path}/none", f"{tmp_path}/plugin"]) == ("a.proto",)


@pytest.mark.parametrize("name", ["x.binpb", "x.pb", "x.protoset", "x.desc", "x.bin"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_descriptor_sets(tree: Tree, name: str, packed: bool, suffix: str) -> None:
    """A descriptor set is known by its suffix, and its content tells whether it is gzipped."""
    data = compiled(ONE)
    path = tree({}) / (name + suffix)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert loaded(path) == ("set.proto",)
    assert loaded(f"*{suffix}" if suffix else name) == ("set.proto",)


def test_descriptor_sets_in_memory() -> None:
    """A set's bytes, gzipped or not, and a FileDescriptorSet are loaded as they are."""
    data = compiled(ONE)
    assert loaded(data) == ("set.proto",)
    assert loaded(gzip.compress(data)) == ("set.proto",)
    assert loaded(descriptor_pb2.FileDescriptorSet.FromString(data)) == ("set.proto",)


def test_inline_text() -> None:
    """Text is told from a path by its line breaks or its first word; texts are numbered."""
    assert loaded(ONE, TWO) == ("inline_1.proto", "inline_2.proto")
    assert loaded('  edition = "2023"; message M {}') == ("inline_1.proto",)


def test_generated_modules() -> None:
    """A _pb2 module brings its file and all that it imports."""
    from grpc_health.v1 import health_pb2

    assert loaded(health_pb2) == ("grpc_health/v1/health.proto",)
    status = importlib.import_module("google.rpc.status_pb2")
    assert loaded(status) == ("google/protobuf/any.proto", "google/rpc/status.proto")
    client = importlib.import_module("google.api.client_pb2")
    operations = importlib.import_module("google.longrunning.operations_pb2")
    names = loaded(client, operations)
    assert "google/api/client.proto" in names
    assert len(set(names)) == len(names)


def test_sources_of_all_kinds_mix(tree: Tree) -> None:
    """Files, sets, modules and texts make one schema; what two of them carry is taken once."""
    tree(
        {
            "a.proto": P3 + 'import "google/rpc/status.proto";\n'
            'import "google/api/annotations.proto";\n'
            "message A { google.rpc.Status status = 1; }"
        }
    )
    Path("two.binpb").write_bytes(compiled(TWO, "two.proto"))
    schema = Schema.load(
        "a.proto",
        "two.binpb",
        P3 + "message Inline {}",
        importlib.import_module("google.rpc.status_pb2"),
        importlib.import_module("google.api.annotations_pb2"),
        timestamp_pb2,
        struct_pb2,
    )
    schema.build()
    assert schema.declared_files == (
        "a.proto",
        "inline_2.proto",
        "two.proto",
        "google/protobuf/any.proto",
        "google/rpc/status.proto",
        "google/api/http.proto",
        "google/protobuf/descriptor.proto",
        "google/api/annotations.proto",
        "google/protobuf/timestamp.proto",
        "google/protobuf/struct.proto",
    )
    for name in ("A", "Inline", "two.Two", "google.rpc.Status", "google.protobuf.Struct"):
        assert schema.message(name).DESCRIPTOR.full_name == name


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("package:googleapis-common-protos/google/rpc/code.proto", ("google/rpc/code.proto",)),
        ("package:google.rpc/code.proto", ("google/rpc/code.proto",)),
        ("package:google/rpc/code.proto", ("google/rpc/code.proto",)),
        (
            "package:googleapis-common-protos/google/gapic",
            ("google/gapic/metadata/gapic_metadata.proto",),
        ),
        (
            "package:grpc_tools/_proto/google/protobuf/compiler/",
            ("google/protobuf/compiler/plugin.proto",),
        ),
    ],
)
def test_files_of_installed_packages(source: str, expected: tuple[str, ...]) -> None:
    """A package is known by its import name and by its distribution's, and files keep the name
    that everyone imports them by."""
    assert loaded(source) == expected


def test_a_distribution_is_its_own_files() -> None:
    """A whole distribution stands for what it installed, not for what else is in that folder."""
    names = loaded("package:googleapis-common-protos")
    assert {name.split("/")[1] for name in names} >= {"api", "rpc", "type", "logging"}
    assert not any("protobuf" in name or not name.startswith("google/") for name in names)


def test_a_package_of_the_user(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in a package is an import root, and the package is not imported for it."""
    folder = tree(
        {
            "userpkg/__init__.py": "raise RuntimeError",
            "userpkg/protos/a.proto": P3 + 'import "lib/b.proto"; message A { B b = 1; }',
            "userpkg/protos/lib/b.proto": P3 + "message B {}",
        }
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    assert loaded("package:userpkg/protos") == ("a.proto", "lib/b.proto")
    assert loaded("package:userpkg/protos/a.proto") == ("a.proto",)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("none.proto", "none.proto: no such file or folder (looked in {cwd})"),
        ("none/none.proto", "none/none.proto: no such file or folder (looked in {cwd}/none)"),
        ("empty", "empty: the folder has no .proto file in it"),
        ("./empty//", "empty: the folder has no .proto file in it"),
        ("*.nothing", "*.nothing: matches no file"),
        ("./*.nothing", "*.nothing: matches no file"),
        (".//none.proto", "none.proto: no such file or folder (looked in {cwd})"),
        (
            "notes.txt",
            "{cwd}/notes.txt: not a schema source by its name; expected one of"
            " .proto, .binpb, .pb, .protoset, .desc, .bin",
        ),
        ("x" * 5000, "x" * 5000 + ": no such file or folder (looked in {cwd})"),
        ("nul\0.proto", "nul\0.proto: no such file or folder (looked in {cwd})"),
        ("", "'': an empty text is no source; the working directory is '.'"),
        ("package:", "package:: no package is named; write package:NAME/PATH"),
        ("package:/a.proto", "package:/a.proto: no package is named; write package:NAME/PATH"),
        (
            "package:dynserve/../x.proto",
            "package:dynserve/../x.proto: '../x.proto' is not a path inside the package",
        ),
        (
            "package:dynserve//etc/x.proto",
            "package:dynserve//etc/x.proto: '/etc/x.proto' is not a path inside the package",
        ),
        (
            "package:click-8",
            "package:click-8: no package 'click-8' is installed, by import or other name",
        ),
        (
            "package:..x/y",
            "package:..x/y: no package '..x' is installed, by import or other name",
        ),
        (
            "package:no_such.thing/y",
            "package:no_such.thing/y: no package 'no_such.thing' is installed,"
            " by import or other name",
        ),
        (
            "package:__main__/y",
            "package:__main__/y: no package '__main__' is installed, by import or other name",
        ),
        (
            "package:dynserve/none.proto",
            "package:dynserve/none.proto: package 'dynserve' has no 'none.proto'"
            " (looked in {dynserve})",
        ),
        (
            "package:googleapis-common-protos/none",
            "package:googleapis-common-protos/none: 'googleapis-common-protos' has no .proto file"
            " in 'none' (looked in {site})",
        ),
        (
            3,
            "3: an object of type int cannot be loaded; give a path, 'package:NAME/PATH', the text"
            " of a .proto file, a FileDescriptorSet or its bytes, or a generated _pb2 module",
        ),
        (
            timestamp_pb2.Timestamp(),
            "Timestamp: an object of type Timestamp cannot be loaded; give a path,"
            " 'package:NAME/PATH', the text of a .proto file, a FileDescriptorSet or its bytes,"
            " or a generated _pb2 module",
        ),
        (
            ModuleType("plain"),
            "<module 'plain'>: an object of type module cannot be loaded; give a path,"
            " 'package:NAME/PATH', the text of a .proto file, a FileDescriptorSet or its bytes,"
            " or a generated _pb2 module",
        ),
    ],
)
def test_what_cannot_be_loaded_says_why(tree: Tree, source: Any, text: str) -> None:
    """A source that is missing, empty or of another sort is an error that names it."""
    tree({"empty/notes.txt": "", "notes.txt": ""})
    with pytest.raises(SourceError) as caught:
        Schema.load(source)
    package = Path(sources.__file__).parents[1]
    google = importlib.import_module("google.rpc.status_pb2").__file__ or ""
    assert str(caught.value) == text.format(
        cwd=Path.cwd(), dynserve=package, site=Path(google).parents[2]
    )


def test_no_source_at_all() -> None:
    """A schema of nothing is an error."""
    with pytest.raises(SourceError) as caught:
        Schema.load()
    assert str(caught.value) == "schema: no source was given"


def test_a_file_that_cannot_be_read(tree: Tree) -> None:
    """A source that is there but not readable is an error with the system's reason."""
    folder = tree({})
    for name in ("a.proto", "a.binpb"):
        os.symlink("/proc/self/mem", name)
        with pytest.raises(SourceError) as caught:
            Schema.load(name)
        assert str(caught.value) == f"{folder / name}: cannot be read: Input/output error"


@pytest.mark.parametrize("name", ["a.proto", "a.binpb"])
def test_a_file_of_another_sort_is_not_read(tree: Tree, name: str) -> None:
    """A pipe would block for ever and a device never end: neither is opened, nor is a socket."""
    folder = tree({})

    def refusal() -> str:
        with pytest.raises(SourceError) as caught:
            Schema.load(name)
        return str(caught.value)

    os.mkfifo(name)
    head = f"{folder / name}: cannot be read:"
    assert refusal() == f"{head} a named pipe, not a regular file"
    Path(name).unlink()
    os.symlink("/dev/zero", name)
    assert refusal() == f"{head} a device, not a regular file"
    Path(name).unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        assert refusal() == f"{head} a socket, not a regular file"


def test_a_file_that_is_too_large(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is not read into memory whatever its size, which protoc could not take anyway."""
    folder = tree({"a.proto": "x" * (1 << 20)})
    monkeypatch.setattr(sources, "_MAX_SIZE", (1 << 20) - 1)
    with pytest.raises(SourceError) as caught:
        Schema.load("a.proto")
    assert str(caught.value) == f"{folder}/a.proto: is larger than 0 MiB"


def test_hidden_files_of_a_folder_are_passed_over(tree: Tree) -> None:
    """An editor's lock, which is a link to nowhere, and a file manager's notes are no sources."""
    tree({"a.proto": ONE, "._a.proto": "\0\5"})
    os.symlink("user@host.1", ".#a.proto")
    assert loaded(".") == ("a.proto",)
    assert loaded("*") == ("a.proto",)


def test_what_a_distribution_installed_elsewhere(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a distribution put outside its root ('../share') has no name below it."""
    folder = tree(
        {
            "share/out.proto": P3,
            "site/ok.proto": P3,
            "site/odd-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n",
            "site/odd-1.0.dist-info/RECORD": "../share/out.proto,,\nok.proto,,\n",
            "site/bare-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: bare\nVersion: 1.0\n",
        }
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder / "site")])
    assert loaded("package:odd") == ("ok.proto",)
    with pytest.raises(SourceError) as caught:
        Schema.load("package:bare")
    assert str(caught.value) == f"package:bare: 'bare' has no .proto file (looked in {folder}/site)"


def test_a_package_in_an_archive(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that can be imported from an archive is no folder, and the error says so."""
    archive = tree({}) / "zipped.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("zippedpkg/__init__.py", "")
        stream.writestr("zippedpkg/a.proto", ONE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(archive)])
    with pytest.raises(SourceError) as caught:
        Schema.load("package:zippedpkg")
    place = f"(looked in {archive}/zippedpkg)"
    assert str(caught.value) == (f"package:zippedpkg: package 'zippedpkg' is not a folder {place}")
    with pytest.raises(SourceError) as caught:
        Schema.load("package:zippedpkg/a.proto")
    assert str(caught.value) == (
        f"package:zippedpkg/a.proto: package 'zippedpkg' has no 'a.proto' {place}"
    )


def test_damaged_gzip_data() -> None:
    """Gzip data that is damaged, cut off or too large is an error, whatever it would inflate to."""
    whole = gzip.compress(compiled(ONE))
    with pytest.raises(DescriptorError) as caught:
        Schema.load(whole[:-9])
    assert str(caught.value) == "descriptor set: damaged gzip data: the end is missing"
    with pytest.raises(DescriptorError) as caught:
        Schema.load(b"\x1f\x8bgarbage")
    assert str(caught.value) == (
        "descriptor set: damaged gzip data:"
        " Error -3 while decompressing data: unknown compression method"
    )


def test_a_gzip_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that inflates to more than the limit is refused before it has."""
    monkeypatch.setattr(sources, "_MAX_SIZE", 2 << 20)
    with pytest.raises(DescriptorError) as caught:
        Schema.load(gzip.compress(bytes(3 << 20)))
    assert str(caught.value) == "descriptor set: inflates to more than 2 MiB"


def test_a_folder_beside_its_own_file(tree: Tree) -> None:
    """A file that is named twice, by itself and by its folder, has the folder as its root."""
    tree({"protos/sub/a.proto": ONE})
    assert loaded("protos/sub/a.proto", "protos") == ("sub/a.proto",)
    assert loaded("protos", "protos/sub/a.proto") == ("sub/a.proto",)
