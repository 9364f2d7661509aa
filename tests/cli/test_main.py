"""``dynserve``: help, exit codes, and how errors are told."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynserve.cli.main import cli, invoke, main

HELP = """\
Usage: dynserve [OPTIONS] COMMAND [ARGS]...

  Serve any .proto from Python, with no generated code.

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
  check  Compile sources and report every error.
  run    Serve plugins until Ctrl-C or SIGTERM.
"""
HELP_CHECK = """\
Usage: dynserve check [OPTIONS] PATH...

  Compile sources and report every error.

  A PATH is a .proto file, a folder or a descriptor set; all of them are one
  schema. Warnings are reported too. The exit code is 0 when it compiles,
  warnings or not, and 1 when it does not.

Options:
  -I, --include DIR  A root that imports are searched in, before any other and
                     in the order given; for a file below one, no other is
                     inferred. Repeatable.
  -q, --quiet        Print nothing but errors and warnings.
  -h, --help         Show this message and exit.
"""
HELP_RUN = """\
Usage: dynserve run [OPTIONS] [TARGET]...

  Serve plugins until Ctrl-C or SIGTERM.

  A TARGET is a .py file, a folder with a plugin.py, package.module:attribute,
  or the name of an installed plugin. Several are served side by side, each
  with a schema of its own.

  Examples:
    dynserve run examples/route_guide
    dynserve run plugin.py mypackage.service:app --listen 0.0.0.0:8080
    dynserve run --proto third_party/ -I third_party

Options:
  -p, --proto SOURCE              A schema source for plugins that name none:
                                  a .proto file, a folder, a descriptor set,
                                  package:NAME/PATH. With no TARGET it is
                                  served as it is. Repeatable.
  -I, --include DIR               A root that imports are searched in, before
                                  any other and in the order given; for a file
                                  below one, no other is inferred. Repeatable.
  --listen HOST:PORT              An address to listen on: HOST:PORT,
                                  [IPV6]:PORT, unix:PATH; port 0 lets the
                                  system choose. Repeatable.  [default:
                                  127.0.0.1:50051]
  --strict                        Refuse to start while a method has no
                                  handler.
  --no-reflection                 Do not let clients discover the services.
  --engine [auto|queue|aio]       What carries the calls: queue is several
                                  times faster, aio uses public parts of
                                  grpcio only; auto takes the first where it
                                  works.  [env var: DYNSERVE_ENGINE; default:
                                  auto]
  --grace SECONDS                 How long calls under way may go on when the
                                  server stops.  [default: 10.0; x>=0]
  --log-level [debug|info|warning|error|critical]
                                  What is logged to standard error.  [default:
                                  info]
  -h, --help                      Show this message and exit.
"""


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help is as wide as a terminal; that of these tests has 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize(
    ("words", "text"), [([], HELP), (["check"], HELP_CHECK), (["run"], HELP_RUN)]
)
def test_help_of_every_verb(
    words: list[str], option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each verb says what it takes, with examples; no other document is needed to use it."""
    assert invoke([*words, option]) == 0
    assert capsys.readouterr() == (text, "")


def test_every_verb_is_known_here() -> None:
    """The texts above are of all verbs that there are."""
    assert sorted(cli.commands) == ["check", "run"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the installed package."""
    assert invoke(["--version"]) == 0
    assert capsys.readouterr() == (f"dynserve {importlib.metadata.version('dynserve')}\n", "")


@pytest.mark.parametrize(
    ("words", "err"),
    [
        ([], HELP),
        (
            ["rum"],
            "Usage: dynserve [OPTIONS] COMMAND [ARGS]...\nTry 'dynserve --help' for help.\n\n"
            "Error: No such command 'rum'.",
        ),
        (
            ["run"],
            "Usage: dynserve run [OPTIONS] [TARGET]...\nTry 'dynserve run --help' for help.\n\n"
            "Error: name a TARGET to serve, or a schema with --proto.\n",
        ),
        (
            ["run", "x", "--grace", "-1"],
            "Usage: dynserve run [OPTIONS] [TARGET]...\nTry 'dynserve run --help' for help.\n\n"
            "Error: Invalid value for '--grace': -1.0 is not in the range x>=0.\n",
        ),
    ],
)
def test_wrong_words_exit_with_2(
    words: list[str], err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error says how the command is used, on stderr."""
    assert invoke(words) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith(err)  # newer clicks go on with what may have been meant


@pytest.mark.parametrize(
    ("word", "verb"), [("hello.py", "run"), ("folder", "run"), ("folder/a.proto", "check")]
)
def test_a_target_without_a_verb(
    word: str,
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever forgets the verb is told the whole command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.proto").touch()
    assert invoke([word]) == 2
    assert capsys.readouterr().err == (
        "Usage: dynserve [OPTIONS] COMMAND [ARGS]...\nTry 'dynserve --help' for help.\n\n"
        f"Error: No such command '{word}'. Did you mean: dynserve {verb} {word}?\n"
    )


def test_main_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    """``main`` ends the process with the exit code of its words, or of the process's own."""
    monkeypatch.setattr(sys, "argv", ["dynserve", "--version"])
    for argv, code in ((None, 0), (["nope"], 2)):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == code


def test_ctrl_c_exits_as_shells_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interruption before the server runs is no stack trace, and exits with 128 + SIGINT."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dynserve.plugins.load", interrupted)
    assert invoke(["run", "x"]) == 130
    assert capsys.readouterr() == ("", "\n")


def test_a_plugins_exception_has_its_own_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plugin's frames and the chain of its exceptions are shown; dynserve's frames are not."""
    monkeypatch.chdir(tmp_path)
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from dynserve import App\n"
        "def broken():\n"
        "    try:\n"
        "        App().add(3)\n"
        "    except TypeError as error:\n"
        "        raise ValueError('no good') from error\n"
        "broken()\n"
    )
    assert invoke(["run", "plugin.py"]) == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if set(line) - set(" ^~")]  # 3.13 marks code
    assert (out, lines) == (
        "",
        [
            "Traceback (most recent call last):",
            f'  File "{plugin}", line 4, in broken',
            "    App().add(3)",
            "TypeError: got 3 as a handler, expected something that can be called",
            "The above exception was the direct cause of the following exception:",
            "Traceback (most recent call last):",
            f'  File "{plugin}", line 7, in <module>',
            "    broken()",
            f'  File "{plugin}", line 6, in broken',
            "    raise ValueError('no good') from error",
            "ValueError: no good",
            "Error: plugin.py: importing it failed: ValueError: no good",
        ],
    )


def test_a_modules_exception_has_its_own_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames of Python's import machinery are left out, those of other modules are not."""
    package = tmp_path / "shop_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("import json\njson.loads('{')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert invoke(["run", "shop_plugin:app"]) == 1
    err = capsys.readouterr().err
    files = [line.split('"')[1] for line in err.splitlines() if line.startswith("  File ")]
    own = str(package / "__init__.py")
    assert files[0] == own
    assert {os.path.basename(os.path.dirname(file)) for file in files[1:]} == {"json"}
    assert err.splitlines()[-1].startswith(
        "Error: shop_plugin:app: importing it failed: JSONDecodeError: Expecting property name"
    )


def test_a_syntax_error_is_shown_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plugin that Python cannot parse has its line shown, and no traceback before it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin.py").write_text("x = )\n")
    assert invoke(["run", "plugin.py"]) == 1
    assert capsys.readouterr().err == (
        f'  File "{tmp_path / "plugin.py"}", line 1\n'
        "    x = )\n"
        "        ^\n"
        "SyntaxError: unmatched ')'\n"
        "Error: plugin.py: importing it failed: SyntaxError: unmatched ')' (plugin.py, line 1)\n"
    )


@pytest.mark.parametrize(
    "words",
    [["--help"], ["check", "s.proto"], ["run", "-p", "s.proto", "--listen", "127.0.0.1:0"]],
    ids=["help", "check", "run"],
)
def test_a_closed_pipe_is_quiet(words: list[str], tmp_path: Path) -> None:
    """When whoever read the output has gone, the command ends with 1 and no complaint."""
    (tmp_path / "s.proto").write_text('syntax = "proto3";')
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "dynserve", *words],
            check=False,
            stdout=gone,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=30,
        )
    assert (done.returncode, done.stderr) == (1, b"")
