"""``dynserve list``: the services of a server or of sources, and the methods of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from dynserve.cli.main import invoke

from .lab import lab, reflecting

BAD = (
    'bad.proto:1:32: "Nope" is not defined.\n'
    '  1 | syntax = "proto3"; message M { Nope n = 1; }\n'
    "    |                                ^\n"
)
METHODS = """\
lab.Lab/Echo
lab.Lab/Down
lab.Lab/Up
lab.Lab/Chat
lab.Lab/Fail
lab.Lab/Details
lab.Lab/Metadata
lab.Lab/Wait
lab.Lab/Hold
"""


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = invoke(["list", *words])
    return (code, *capsys.readouterr())


def test_what_a_server_serves(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its reflection is asked: a line for each service, sorted."""
    assert said(capsys, address) == (
        0,
        "grpc.health.v1.Health\n"
        "grpc.reflection.v1.ServerReflection\n"
        "grpc.reflection.v1alpha.ServerReflection\n"
        "lab.Lab\n"
        "old.Notes\n",
        "",
    )
    assert said(capsys, address, "lab.Lab") == (0, METHODS, "")


@pytest.mark.parametrize(
    ("source", "services"),
    [
        ("lab.proto", "lab.Lab\n"),
        (".", "lab.Lab\nold.Notes\n"),
        ("l*.proto", "lab.Lab\n"),
        ("set.binpb", "lab.Lab\nold.Notes\n"),
        ("package:googleapis-common-protos/google/longrunning", "google.longrunning.Operations\n"),
        ("hidden.proto", ""),
    ],
)
def test_sources_in_place_of_a_server(
    source: str,
    services: str,
    address: str,
    protos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file, a folder, a glob, a descriptor set or a package lists what it declares."""
    for file in protos.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    if source == "set.binpb":
        assert invoke(["export", str(protos), "-o", source]) == 0
        for file in tmp_path.glob("*.proto"):
            file.unlink()
        capsys.readouterr()
    assert said(capsys, source) == (0, services, "")
    if "lab.Lab" in services:
        assert said(capsys, source, "lab.Lab") == (0, METHODS, "")


@pytest.mark.parametrize(
    "words",
    [
        ["--proto", "lab.proto"],
        ["-p", "nested/one.proto", "-I", "nested", "-I", "."],
        ["--descriptor-set", "set.binpb"],
    ],
)
def test_sources_beside_an_address(
    words: list[str],
    closed: str,
    protos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They take the place of reflection: the server is not asked at all."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nested").mkdir()
    (tmp_path / "lab.proto").write_bytes((protos / "lab.proto").read_bytes())
    (tmp_path / "nested" / "one.proto").write_text(
        'syntax = "proto3"; package one; import "lab.proto";'
        " service One { rpc Do(lab.Item) returns (lab.Item); }"
    )
    (tmp_path / "set.binpb").write_bytes(set_of("two.proto", "two.Two"))
    expected = {"lab": "lab.Lab\n", "nes": "one.One\n", "set": "two.Two\n"}[words[1][:3]]
    assert said(capsys, closed, *words) == (0, expected, "")


def set_of(name: str, service: str) -> bytes:
    """A descriptor set with one service."""
    file = FileDescriptorProto(name=name, package=service.partition(".")[0], syntax="proto3")
    file.service.add(name=service.partition(".")[2])
    return FileDescriptorSet(file=[file]).SerializeToString()


@pytest.mark.parametrize(
    ("words", "code", "err"),
    [
        (
            ["ADDR", "lab.Lob"],
            1,
            "Error: no service 'lab.Lob' on ADDR; did you mean 'lab.Lab'?\n",
        ),
        (
            ["PROTOS", "lab.lab"],
            1,
            "Error: no service 'lab.lab' in the schema; did you mean 'lab.Lab'?\n",
        ),
        (["nope.proto"], 2, "Error: nope.proto: no such file or folder (looked in HERE)\n"),
        (["nope/"], 2, "Error: nope: no such file or folder (looked in HERE)\n"),
        (["n*.proto"], 2, "Error: n*.proto: matches no file\n"),
        (["nope.bin"], 2, "Error: nope.bin: no such file or folder (looked in HERE)\n"),
        (["package:nope"], 2, "Error: package:nope: no package 'nope' is installed, by import or"
         " other name\n"),
        (
            ["localhost"],
            2,
            "Error: localhost: expected HOST:PORT, unix:PATH, or a URI that gRPC knows, such as"
            " dns:///HOST:PORT\n",
        ),
        (
            [":50051"],
            2,
            "Error: :50051: expected HOST:PORT, unix:PATH, or a URI that gRPC knows, such as"
            " dns:///HOST:PORT; did you mean localhost:50051?\n",
        ),
        (["http://a.b/"], 2, "Error: http://a.b/: a URL; write 'a.b:80'\n"),
        (["https://a.b"], 2, "Error: https://a.b: a URL; write 'a.b:443', and --tls\n"),
        (
            ["SILENT"],
            1,
            "Error: SILENT: serves no reflection; name its .proto files with --proto\n",
        ),
        (["bad.proto"], 1, BAD),
        (["SILENT", "--proto", "bad.proto"], 1, BAD),
    ],
)  # fmt: skip
def test_mistakes_are_told(
    words: list[str],
    code: int,
    err: str,
    address: str,
    silent: str,
    protos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One text says what was got and what to write; wrong words of the user exit with 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.proto").write_text('syntax = "proto3"; message M { Nope n = 1; }')
    places = {"ADDR": address, "SILENT": silent, "PROTOS": str(protos)}
    words = [places.get(word, word) for word in words]
    for name, place in {**places, "HERE": str(tmp_path)}.items():
        err = err.replace(name, place)
    assert said(capsys, *words) == (code, "", err)


def test_a_server_that_is_not_there(closed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """UNAVAILABLE is 64 + 14, and the text says where nobody listened."""
    assert said(capsys, closed) == (
        78,
        "",
        "Error: UNAVAILABLE: failed to connect to all addresses; last error: UNKNOWN:"
        f" ipv4:{closed}: Failed to connect to remote host: Connection refused\n",
    )


@pytest.mark.parametrize(
    ("target", "words", "warning"),
    [
        ("source", ["--tls"], "--tls has no effect, no server is asked"),
        ("source", ["-H", "a: b"], "--header has no effect, no server is asked"),
        ("source", ["--max-time", "3"], "--max-time has no effect, no server is asked"),
        ("address", ["-I", "x"], "--include has no effect, it is for --proto"),
        (
            "address",
            ["-p", "lab.proto", "--reflect-header", "a: b"],
            "--reflect-header has no effect, the sources take the place of reflection",
        ),
    ],
)
def test_a_flag_without_effect_warns(
    target: str,
    words: list[str],
    warning: str,
    address: str,
    protos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Who gives an option that does nothing here is told so, and the rest is done."""
    monkeypatch.chdir(protos)
    named = "lab.proto" if target == "source" else address
    code, out, err = said(capsys, named, *words)
    assert (code, err) == (0, f"Warning: {warning}\n")
    assert "lab.Lab\n" in out


def test_a_token_in_the_environment_is_no_flag(
    protos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is always set is not warned of where it has no use."""
    monkeypatch.setenv("DYNSERVE_TOKEN", "secret")
    assert said(capsys, str(protos / "lab.proto")) == (0, "lab.Lab\n", "")


def test_a_unix_socket(
    protos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """unix:PATH is an address as HOST:PORT is."""
    monkeypatch.chdir(tmp_path)
    with lab(protos).server("unix:socket").in_thread():
        assert said(capsys, "unix:socket", "old.Notes") == (0, "old.Notes/Put\n", "")


def test_what_is_listed_is_what_the_server_says(capsys: pytest.CaptureFixture[str]) -> None:
    """A service whose file the server does not tell of is listed all the same."""
    with reflecting([], "b.B", "a.A").server("127.0.0.1:0", reflection=False).in_thread() as server:
        assert said(capsys, server.addresses[0]) == (0, "a.A\nb.B\n", "")
