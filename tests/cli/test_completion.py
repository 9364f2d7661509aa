"""Shell completion: scripts, and the names that they are told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynserve.cli.main import invoke

from .lab import reflecting, timeless

METHODS = ["Echo", "Down", "Up", "Chat", "Fail", "Details", "Metadata", "Wait", "Hold"]


def completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> list[str]:
    """The names for the last word, as zsh is told them: type, value and help of each."""
    monkeypatch.setenv("_DYNSERVE_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["dynserve", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert invoke([]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert [lines[i] for i in range(0, len(lines) - 1, 3)] == ["plain"] * (len(lines) // 3)
    return lines[1::3]


SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "lab.Lab",
    "old.Notes",
]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["list", "ADDR", ""], SERVICES),
        (["list", "ADDR", "lab."], ["lab.Lab"]),
        (["list", "ADDR", "-p", "PROTOS/old.proto", ""], ["old.Notes"]),
        (["list", "PROTOS", "o"], ["old.Notes"]),
        (["call", "ADDR", "g"], SERVICES[:3]),
        (["call", "ADDR", "lab"], [f"lab.Lab/{name}" for name in METHODS]),
        (["call", "ADDR", "lab.Lab/D"], ["lab.Lab/Down", "lab.Lab/Details"]),
        (["call", "ADDR", "lab.Lab/X"], []),
        (["describe", "ADDR", "o"], ["old.Note", "old.Notes", "old.Notes.Put", "old.author"]),
        (["describe", "ADDR", "old."], ["old.Note", "old.Notes", "old.Notes.Put", "old.author"]),
        (["describe", "ADDR", "old.Notes", "lab.S"], ["lab.SMALL", "lab.Size"]),
        (
            ["export", "PROTOS", "lab.L"],
            ["lab.LARGE", "lab.Lab", *sorted(f"lab.Lab.{name}" for name in METHODS)],
        ),
        (["describe", "PROTOS", "lab.H"], ["lab.Hidden"]),
    ],
)
def test_names_of_a_server_and_of_sources(
    words: list[str],
    names: list[str],
    address: str,
    protos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Services; methods of the one that is named; all that is declared beside it."""
    words = [word.replace("ADDR", address).replace("PROTOS", str(protos)) for word in words]
    assert completed(monkeypatch, capsys, *words) == names


@pytest.mark.parametrize(
    "target", ["127.0.0.1:1", "localhost", "no.proto", "https://localhost", "unix:none", "BAD"]
)
def test_who_cannot_tell_tells_nothing(
    target: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A shell has no place for an error."""
    (tmp_path / "bad.proto").write_text("nonsense")
    target = target.replace("BAD", str(tmp_path / "bad.proto"))
    assert completed(monkeypatch, capsys, "call", target, "") == []


def test_a_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is given up after two seconds, here less, and no error is said."""
    monkeypatch.setattr("dynserve.cli.completion._SECONDS", 0.2)
    with timeless().server("127.0.0.1:0", reflection=False).in_thread(0) as server:
        started = time.monotonic()
        assert completed(monkeypatch, capsys, "call", server.addresses[0], "a") == []
        assert time.monotonic() - started < 2


def test_warnings_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a server lacks is not for a prompt that is being written."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
    file.dependency.append("gone.proto")
    method = file.service.add(name="A").method.add(name="Do")
    method.input_type = method.output_type = ".gone.Gone"
    with reflecting([file], "a.A").server("127.0.0.1:0", reflection=False).in_thread() as server:
        names = completed(monkeypatch, capsys, "call", server.addresses[0], "a.A/")
    assert names == ["a.A/Do"]


def test_verbs_and_what_they_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every verb with its description, whole."""
    monkeypatch.setenv("_DYNSERVE_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", "dynserve ")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert invoke([]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert dict(zip(shown[1::3], shown[2::3], strict=True)) == {
        "call": "Call a method of a server.",
        "check": "Compile sources and report every error.",
        "completion": "Print a script for completion in a shell.",
        "describe": "Show symbols as .proto text.",
        "envoy": "Write a configuration with which Envoy...",
        "export": "Write what a server reflects to files.",
        "list": "List services, or the methods of one.",
        "run": "Serve plugins until Ctrl-C or SIGTERM.",
    }


@pytest.mark.parametrize(
    "words",
    [
        ["list", "x"],
        ["list", "ADDR", "-p", "x"],
        ["list", "ADDR", "--cacert", "x"],
        ["export", "ADDR", "-o", "x"],
    ],
)
def test_files(
    words: list[str],
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where a file is expected the shell is told to complete it."""
    words = [word.replace("ADDR", address) for word in words]
    monkeypatch.setenv("_DYNSERVE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_LINE", " ".join(["dynserve", *words]))
    assert invoke([]) == 0
    assert capsys.readouterr().out.split() == ["file,x"]


def test_words_that_bash_broke(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that click made itself tells words, and is understood."""
    monkeypatch.setenv("_DYNSERVE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "dynserve comp")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert invoke([]) == 0
    assert capsys.readouterr() == ("plain,completion\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One for each shell, made of click's own."""
    assert invoke(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"_DYNSERVE_COMPLETE={shell}_complete" in out
    assert "dynserve_completion" in out
    assert "%(" not in out


def test_another_shell(capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused with those that there are."""
    assert invoke(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'." in capsys.readouterr().err


def test_in_bash(address: str, tmp_path: Path) -> None:
    """bash breaks words at the colon of HOST:PORT; the address is whole all the same."""
    command = tmp_path / "dynserve"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m dynserve "$@"\n')
    command.chmod(0o755)
    script = """
        eval "$(dynserve completion bash)"
        for COMP_LINE in "dynserve exp" "dynserve call $1 lab.Lab/D" "dynserve list $1 "; do
            COMP_POINT=${#COMP_LINE}
            COMP_LINE="$COMP_LINE and what stands behind the cursor"
            _dynserve_completion dynserve
            echo "${COMPREPLY[*]}"
        done
        complete -p dynserve
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", address],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert (done.stdout, done.stderr) == (
        "export\n"
        "lab.Lab/Down lab.Lab/Details\n"
        f"{' '.join(SERVICES)}\n"
        "complete -o nosort -F _dynserve_completion dynserve\n",
        "",
    )
