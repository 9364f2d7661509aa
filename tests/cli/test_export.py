"""``dynserve export``: descriptor sets and .proto files that say what was told."""

from __future__ import annotations

import importlib.metadata
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from dynserve import App, Schema
from dynserve.cli.main import invoke

from .lab import ROOT, Child, reflecting

_TOOLS = importlib.metadata.distribution("grpcio-tools").locate_file("grpc_tools/_proto")
TOOLS = Path(str(_TOOLS))
SERVICE = """
    syntax = "proto3";
    import "google/protobuf/empty.proto";
    service Served { rpc Do(google.protobuf.Empty) returns (google.protobuf.Empty); }
"""
SYMBOLS = ("lab.Lab", "lab.Hidden", "old.Notes", "old.author")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = invoke(["export", *words])
    return (code, *capsys.readouterr())


def below(folder: str) -> list[str]:
    """The files below a folder."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def declared(schema: Schema, name: str) -> Any:
    """A file as it was compiled, without where it stood in its source."""
    return FileDescriptorProto.FromString(schema.index.stripped(name))


def assert_same(one: Schema, other: Schema, names: Iterable[str]) -> None:
    for name in names:
        assert declared(one, name) == declared(other, name), name


# ---- from a server


def test_a_set_and_a_folder(address: str, protos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both at once; the set opens, the folder compiles again, and both say what is served."""
    words = ("-o", "set.binpb", "--proto-dir", "protos")
    code, out, err = said(capsys, address, *words, *SYMBOLS)
    size = os.path.getsize("set.binpb")
    assert (code, out, err) == (
        0,
        "",
        f"protos: 3 .proto files\nset.binpb: 4 files, {size} bytes\n",
    )
    assert below("protos") == ["hidden.proto", "lab.proto", "old.proto"]
    served, opened, compiled = (
        Schema.load(source, cache=False) for source in (protos, "set.binpb", "protos")
    )
    assert opened.services == ("lab.Lab", "old.Notes")
    assert_same(served, opened, served.index.files)
    assert_same(served, compiled, served.declared_files)
    assert opened.comments("lab.proto") == served.comments("lab.proto")
    pool: Any = DescriptorPool()  # takes a file after what it imports
    for file in FileDescriptorSet.FromString(Path("set.binpb").read_bytes()).file:
        pool.Add(file)
    assert pool.FindServiceByName("lab.Lab").methods_by_name["Echo"].input_type.fields


@pytest.mark.parametrize("source", ["examples", "googleapis", "grpc_tools"])
def test_what_is_exported_compiles_again(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a server reflects, health and reflection included, is what its files declare.

    The servers are of all examples, of googleapis-common-protos, and of what comes with grpcio.
    """
    app = {
        "examples": lambda: App(ROOT / "protos"),
        "googleapis": lambda: App("package:googleapis-common-protos"),
        "grpc_tools": lambda: App(TOOLS, SERVICE, include=[TOOLS]),
    }[source]()
    app.fallback(nobody)
    assert_exported(app, capsys)


def nobody(request: Any) -> None:
    """Handles what is not called."""


def assert_exported(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """Every service of the app, and every message beside them, exported and compiled again."""
    schema = app.schema
    symbols = [
        f"{file.package}.{item.name}".lstrip(".")
        for file in (declared(schema, name) for name in schema.declared_files)
        for item in [*file.service, *file.message_type, *file.enum_type, *file.extension][:1]
    ]
    with app.server("127.0.0.1:0").in_thread() as server:
        own = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
        words = [server.addresses[0], *symbols, *own, "--proto-dir", "protos", "-o", "set.binpb"]
        code, out, err = said(capsys, *words)
    assert (code, out) == (0, "")
    empty = {n for n in schema.declared_files if not has_symbol(declared(schema, n))}
    names = set(schema.declared_files) - empty
    assert names <= set(below("protos"))
    assert err.startswith(f"protos: {len(below('protos'))} .proto files\nset.binpb: ")
    compiled, opened = (Schema.load(each, cache=False) for each in ("protos", "set.binpb"))
    assert_same(schema, compiled, names)
    assert_same(schema, opened, names)
    assert set(opened.services) - {own[0], own[1]} == set(schema.services)
    for module in (health_pb2, reflection_pb2):
        name = module.DESCRIPTOR.name
        assert declared(compiled, name) == with_json_names(Schema.load(module), name)


def with_json_names(schema: Schema, name: str) -> Any:
    """A file of a generated module, with what protoc leaves out there of the names in JSON."""
    file = declared(schema, name)
    messages = list(file.message_type)
    while messages:
        message = messages.pop()
        messages += message.nested_type
        for field in message.field:
            first, *rest = field.name.split("_")
            field.json_name = first + "".join(map(str.capitalize, rest))
    return file


def has_symbol(file: Any) -> bool:
    return bool(file.service or file.message_type or file.enum_type or file.extension)


def test_every_service_without_symbols(
    address: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """``-o -`` writes nothing but the set to standard output."""
    assert invoke(["export", address, "-o", "-"]) == 0
    out, err = capsysbinary.readouterr()
    assert err == b""
    assert Schema.load(out).services == (
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "lab.Lab",
        "old.Notes",
    )


# ---- from sources


def test_well_known_files_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """They are left out where they are only imported; those of grpc_tools compile again."""
    assert said(capsys, str(TOOLS), "--proto-dir", "protos")[0] == 0
    names = sorted(path.relative_to(TOOLS).as_posix() for path in TOOLS.rglob("*.proto"))
    assert below("protos") == names
    assert_same(
        Schema.load(TOOLS, include=[TOOLS], cache=False),
        Schema.load("protos", include=["protos"], cache=False),
        names,
    )


def test_sources_to_a_set(protos: Path, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A symbol takes its file and what that imports, each after its imports; without, all."""
    code, out, err = said(capsys, str(protos), "lab.Lab/Echo", "-o", "new/lab.binpb")
    size = os.path.getsize("new/lab.binpb")
    assert (code, out, err) == (0, "", f"new/lab.binpb: 2 files, {size} bytes\n")
    files = FileDescriptorSet.FromString(Path("new/lab.binpb").read_bytes()).file
    assert [file.name for file in files] == ["google/protobuf/any.proto", "lab.proto"]
    assert said(capsys, str(protos), "--proto-dir", "all") == (0, "", "all: 3 .proto files\n")
    assert below("all") == ["hidden.proto", "lab.proto", "old.proto"]
    words = ("--proto", str(protos / "old.proto"), "old.Note", "--proto-dir", "one")
    assert said(capsys, "127.0.0.1:1", *words) == (0, "", "one: 1 .proto file\n")
    assert below("one") == ["old.proto"]


# ---- what goes wrong


def test_other_files_are_not_written_over(
    protos: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not one file is written then, nor the set; --force replaces; the same again is no loss."""
    words = (str(protos), "--proto-dir", "out", "-o", "set.binpb")
    Path("out").mkdir()
    Path("out/old.proto").write_text("mine")
    assert said(capsys, *words) == (
        1,
        "",
        "Error: out/old.proto is there and says something else; --force replaces it\n",
    )
    assert below(".") == ["out/old.proto"]
    assert Path("out/old.proto").read_text() == "mine"
    assert said(capsys, *words, "--force")[0] == 0
    assert below(".") == ["out/hidden.proto", "out/lab.proto", "out/old.proto", "set.binpb"]
    assert Path("out/old.proto").read_text() != "mine"
    assert said(capsys, *words)[0] == 0


@pytest.mark.parametrize(
    "name",
    [
        "../x.proto",
        "/x.proto",
        "a//x.proto",
        "a/./x.proto",
        "a/../x.proto",
        "a\\x.proto",
        "c:x.proto",
        "a/c:x.proto",
        "x\0.proto",
        "x\n.proto",
        "Makefile",
        ".bashrc",
        "x.proto/",
    ],
)
def test_hostile_file_names(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A server's name for a file leads nowhere but below the folder; nothing is written at all."""
    bad = FileDescriptorProto(name=name, package="p", syntax="proto3")
    bad.service.add(name="S")
    good = FileDescriptorProto(name="good.proto", package="g", syntax="proto3")
    good.service.add(name="S")
    with (
        reflecting([good, bad], "g.S", "p.S")
        .server("127.0.0.1:0", reflection=False)
        .in_thread() as server
    ):
        code, out, err = said(capsys, server.addresses[0], "--proto-dir", "out/in")
    assert (code, out, below(".")) == (1, "", [])
    assert err == (
        f"Error: {name!r}: is no name for a .proto file below a folder; nothing is written"
        " (-o would)\n"
    )


def test_a_symlink_is_not_written_through(
    protos: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --force a link is replaced, and what it names is left alone."""
    Path("precious").write_text("mine")
    Path("out").mkdir()
    Path("out/old.proto").symlink_to(Path("precious").absolute())
    assert said(capsys, str(protos), "--proto-dir", "out", "--force")[0] == 0
    assert Path("precious").read_text() == "mine"
    assert not Path("out/old.proto").is_symlink()


def test_permissions(protos: Path, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Files are for whom the umask lets read them."""
    mask = os.umask(0o027)
    try:
        assert said(capsys, str(protos), "-o", "set.binpb")[0] == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE(os.stat("set.binpb").st_mode) == 0o640


@pytest.mark.parametrize(
    ("words", "err"),
    [
        (["-o", "file/set.binpb"], "file is there and is no folder"),
        (["-o", "folder"], "folder: Is a directory"),
        (["--proto-dir", "file"], "file is there and is no folder"),
        (["--proto-dir", "file/inner"], "file/inner: Not a directory"),
        (["--proto-dir", "taken"], "taken/old.proto: Is a directory"),
    ],
)
def test_places_that_cannot_be_written(
    words: list[str],
    err: str,
    protos: Path,
    address: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The path and the reason, and no half of a file, nor a temporary one."""
    Path("file").touch()
    Path("folder").mkdir()
    Path("taken/old.proto").mkdir(parents=True)
    assert said(capsys, str(protos), *words) == (1, "", f"Error: {err}\n")
    assert below(".") == ["file"]


@pytest.mark.parametrize(
    ("words", "code", "err"),
    [
        (["lab.proto"], 2, "USAGEname what to write: -o FILE, --proto-dir DIR, or both."),
        (
            ["lab.proto", "lab.Lob", "-o", "x"],
            1,
            "no symbol 'lab.Lob' in the schema; did you mean 'lab.Lab'?",
        ),
        (
            ["lab.proto", "lab.Lab/Ecko", "-o", "x"],
            1,
            "no symbol 'lab.Lab.Ecko' in the schema; did you mean 'lab.Lab.Echo'",
        ),
        (["no.proto", "-o", "x"], 2, "no.proto: no such file or folder (looked in "),
    ],
)
def test_mistakes_are_told(
    words: list[str],
    code: int,
    err: str,
    protos: Path,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And nothing is written."""
    monkeypatch.chdir(protos)
    got, out, told = said(capsys, *words)
    assert (got, out, Path("x").exists()) == (code, "", False)
    usage = (
        "Usage: dynserve export [OPTIONS] ADDR|SOURCE [SYMBOL]...\n"
        "Try 'dynserve export --help' for help.\n\n"
    )
    shown = f"{usage}Error: {err[5:]}" if err.startswith("USAGE") else f"Error: {err}"
    assert told.startswith(shown)


def test_force_without_a_folder(
    protos: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag without effect is warned of."""
    code, _, err = said(capsys, str(protos / "old.proto"), "-o", "x", "--force")
    size = os.path.getsize("x")
    assert (code, err) == (
        0,
        f"Warning: --force has no effect, it is for --proto-dir\nx: 1 file, {size} bytes\n",
    )


def test_a_service_that_is_listed_and_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    """The rest is written, a warning names it, and the exit code is 1."""
    file = FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
    file.service.add(name="A")
    with (
        reflecting([file], "a.A", "b.B")
        .server("127.0.0.1:0", reflection=False)
        .in_thread() as server
    ):
        assert said(capsys, server.addresses[0], "--proto-dir", "out") == (
            1,
            "",
            "Warning: b.B is listed by the server, which does not tell of it\nout: 1 .proto file\n",
        )
    assert below(".") == ["out/a.proto"]


def test_a_file_that_the_server_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning says what is missing; what is written compiles, with nothing in its types."""
    file = FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
    file.dependency.append("gone.proto")
    method = file.service.add(name="A").method.add(name="Do")
    method.input_type = method.output_type = ".gone.Gone"
    with reflecting([file], "a.A").server("127.0.0.1:0", reflection=False).in_thread() as server:
        place = server.addresses[0]
        code, out, err = said(capsys, place, "--proto-dir", "out", "-o", "set.binpb")
    assert (code, out) == (0, "")
    assert err.startswith(f"Warning: {place} does not tell of 'gone.proto': ")
    for source in ("out/a.proto", "set.binpb"):
        assert Schema.load(source, cache=False).method("a.A/Do").request.DESCRIPTOR.fields == []


def test_whoever_reads_has_gone(protos: Path, address: str) -> None:
    """A closed pipe ends the command with 1, and is quiet."""
    ours, theirs = os.pipe()
    os.close(ours)
    with Child.of("export", str(protos), "-o", "-", stdout=theirs) as child:
        os.close(theirs)
        assert child.end() == (1, "", "")
