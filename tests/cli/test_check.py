"""``dynserve check``: compile sources and report."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from dynserve.cli.main import invoke

GOOD = 'syntax = "proto3"; message M {} service S { rpc Do(M) returns (M); }'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "files", "code", "out", "err"),
    [
        (
            ["a.proto"],
            {"a.proto": GOOD},
            0,
            "ok: 1 file, 1 service, 1 method\n",
            "",
        ),
        (["a.proto", "-q"], {"a.proto": GOOD}, 0, "", ""),
        (
            [".", "-I", "."],
            {
                "a.proto": GOOD,
                "b/c.proto": 'syntax = "proto3"; import "a.proto"; message N { M m = 1; }',
            },
            0,
            "ok: 2 files, 1 service, 1 method\n",
            "",
        ),
        (
            ["b.proto"],
            {"a.proto": GOOD, "b.proto": 'syntax = "proto3"; import "a.proto"; message N {}'},
            0,
            "ok: 1 file, 0 services, 0 methods, 1 warning\n",
            "b.proto:1:20: warning: Import a.proto is unused.\n"
            '  1 | syntax = "proto3"; import "a.proto"; message N {}\n'
            "    |                    ^\n",
        ),
        (
            ["."],
            {
                "a.proto": 'syntax = "proto3"; message M { Nope a = 1; }',
                "b.proto": 'syntax = "proto3";\nmessage N {\n  Gone b = 1;\n  Lost c = 2;\n}\n',
            },
            1,
            "",
            'a.proto:1:32: "Nope" is not defined.\n'
            '  1 | syntax = "proto3"; message M { Nope a = 1; }\n'
            "    |                                ^\n"
            'b.proto:3:3: "Gone" is not defined.\n'
            "  3 |   Gone b = 1;\n"
            "    |   ^\n"
            'b.proto:4:3: "Lost" is not defined.\n'
            "  4 |   Lost c = 2;\n"
            "    |   ^\n",
        ),
        (
            ["nope.proto"],
            {},
            2,
            "",
            "Error: nope.proto: no such file or folder (looked in FOLDER)\n",
        ),
        (
            [],
            {},
            2,
            "",
            "Usage: dynserve check [OPTIONS] PATH...\nTry 'dynserve check --help' for help.\n\n"
            "Error: Missing argument 'PATH...'.\n",
        ),
    ],
    ids=["ok", "quiet", "folder", "warning", "errors", "missing", "usage"],
)
def test_check(
    words: list[str],
    files: dict[str, str],
    code: int,
    out: str,
    err: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is found goes to stderr in the compiler's own form, the sum to stdout."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    assert invoke(["check", *words]) == code
    said = capsys.readouterr()
    assert (said.out, said.err) == (out, err.replace("FOLDER", str(folder)))


def test_check_builds_what_it_loads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A descriptor set is built in full, so that what is wrong with it is said."""
    files = FileDescriptorSet()
    message = files.file.add(name="a.proto", syntax="proto3").message_type.add(name="M")
    message.field.add(name="f", number=1, type=11, label=1, type_name=".no.N")
    (folder / "a.binpb").write_bytes(files.SerializeToString())
    assert invoke(["check", "a.binpb"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "",
        "Error: a.proto: cannot be built: couldn't resolve name '.no.N'\n",
    )
