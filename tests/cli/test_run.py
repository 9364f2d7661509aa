"""``dynserve run``: targets, options, what it says, and how it ends."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dynserve import Server
from dynserve.cli.main import invoke

pytestmark = pytest.mark.usefixtures("engine")

SECONDS = 30
PROTO = """
syntax = "proto3";
package NAME;
message Item { string name = 1; }
service Items { rpc Get(Item) returns (Item); }
"""
PLUGIN = """
from dynserve import App

app = App(SOURCES)

@app.rpc
def get(request):
    return {"name": request.name + __name__[:6]}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def write(path: str, text: str, **values: str) -> None:
    for name, value in values.items():
        text = text.replace(name, value)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


class Child:
    """``dynserve run`` in a process of its own, past the last line that it says at its start."""

    def __init__(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        self.process = process
        self.lines = lines
        listening = [line for line in lines if line.startswith("Listening on ")]
        self.addresses = [line.removeprefix("Listening on ") for line in listening]
        self.commands = [line.strip() for line in lines if line.startswith("  ")]

    def end(self) -> tuple[int, str]:
        """Wait for the end; the exit code and what it said since."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out + err


@contextmanager
def running(*words: str, said_last: str = "  grpcurl -plaintext -d ") -> Iterator[Child]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dynserve", "run", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "site"},
    )
    with process:
        try:
            lines = []
            for line in process.stdout or ():
                lines.append(line.rstrip("\n"))
                if line.startswith(said_last):
                    break
            else:
                pytest.fail(f"it ended: {lines}, {process.stderr and process.stderr.read()}")
            yield Child(process, lines)
        finally:
            process.kill()


def call(address: str, path: str, request: bytes, **options: Any) -> Any:
    with grpc.insecure_channel(address) as channel:
        method: Any = channel.unary_unary(path)
        return method(request, timeout=SECONDS, **options)


def test_all_kinds_of_targets_side_by_side(folder: Path, tool: Callable[[str], str]) -> None:
    """A file, a folder, a module and an installed plugin are served together, on each address.

    Those that name no source get --proto, all search -I, and what is printed can be pasted.
    """
    write("roots/shared.proto", PROTO, NAME="module")
    write("given.proto", PROTO, NAME="given")
    write("file.proto", PROTO, NAME="file")
    write("one.py", PLUGIN, SOURCES="'file.proto'")
    write("folder/folder.proto", PROTO, NAME="folder")
    write("folder/plugin.py", PLUGIN, SOURCES="'folder.proto'")
    write("module.proto", 'syntax = "proto3"; import "shared.proto";')
    write("package/service.py", PLUGIN, SOURCES="'module.proto'")
    with Path("package/service.py").open("a") as file:
        file.write("\napp.registrations.clear()\napp.add(get, 'module.Items/Get')\n")
    write("site/installed.py", PLUGIN, SOURCES="")
    write("site/installed-1.dist-info/METADATA", "Name: installed\nVersion: 1\n")
    points = "[dynserve.plugins]\nshop = installed:app\n"
    write("site/installed-1.dist-info/entry_points.txt", points)

    targets = ["one.py", "folder", "package.service:app", "shop", "-p", "given.proto", "-I", "."]
    listen = ["--listen", "127.0.0.1:0", "--listen", "unix:sock", "--listen", "[::1]:0"]
    with running(*targets, "-I", "roots", *listen, "--strict") as child:
        assert child.lines == [
            "file.Items/Get (unary-unary): get",
            "folder.Items/Get (unary-unary): get",
            "given.Items/Get (unary-unary): get",
            "module.Items/Get (unary-unary): get",
            f"Listening on {child.addresses[0]}",
            "Listening on unix:sock",
            f"Listening on {child.addresses[-1]}",
            "",
            f"""  dynserve call {child.addresses[0]} file.Items/Get -d '{{"name": "text"}}'""",
            f"  grpcurl -plaintext {child.addresses[0]} list",
            f"  grpcurl -plaintext {child.addresses[0]} describe file.Items",
            f"""  grpcurl -plaintext -d '{{"name": "text"}}' {child.addresses[0]} file.Items/Get""",
        ]
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d+", child.addresses[0])
        assert re.fullmatch(r"\[::1\]:[1-9]\d+", child.addresses[-1])
        answers = {
            name: call("unix:sock", f"/{name}.Items/Get", b"\n\x01a")
            for name in ("file", "folder", "given", "module")
        }
        assert answers == {
            "file": b"\n\x07adynser",
            "folder": b"\n\x07adynser",
            "given": b"\n\x07ainstal",
            "module": b"\n\x07apackag",
        }
        own = [sys.executable, "-m", "dynserve"]
        programs = {"dynserve": own, "grpcurl": [tool("grpcurl")]}
        pasted = [
            subprocess.run(
                [*programs[command.split()[0]], *shlex.split(command)[1:]],
                check=True,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            ).stdout
            for command in child.commands
        ]
        assert pasted == [
            '{"name": "textdynser"}\n',
            "file.Items\nfolder.Items\ngiven.Items\ngrpc.health.v1.Health\n"
            "grpc.reflection.v1.ServerReflection\ngrpc.reflection.v1alpha.ServerReflection\n"
            "module.Items\n",
            "file.Items is a service:\n"
            "service Items {\n  rpc Get ( .file.Item ) returns ( .file.Item );\n}\n",
            '{\n  "name": "textdynser"\n}\n',
        ]


SLOW = """
import sys, threading
from dynserve import App

app = App('''syntax = "proto3"; message M {} service S { rpc Do(M) returns (M); }''')
released = threading.Event()

@app.rpc("Do")
def do(request, context):
    print("called", file=sys.stderr, flush=True)
    released.wait(WAIT)
    return {}
"""


@contextmanager
def called(address: str) -> Iterator[list[Any]]:
    """A call of S/Do while the block runs; its response or its status is in the list at the end."""
    got: list[Any] = []

    def work() -> None:
        try:
            got.append(call(address, "/S/Do", b""))
        except grpc.RpcError as error:
            got.append(error.code())

    thread = threading.Thread(target=work)
    thread.start()
    yield got
    thread.join(SECONDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_gracefully(number: int) -> None:
    """Ctrl-C or SIGTERM: a call under way is finished, then the exit code is 0."""
    write("plugin.py", SLOW, WAIT="0.1")
    with running("plugin.py", "--listen", "unix:s") as child, called("unix:s") as got:
        assert child.process.stderr is not None
        assert child.process.stderr.readline() == "called\n"
        child.process.send_signal(number)
        assert child.end() == (0, "")
    assert got == [b""]


def test_a_second_signal_stops_at_once() -> None:
    """What is waited for is said; whoever signals again has no patience for it. The code is 0."""
    write("plugin.py", SLOW, WAIT="60")
    words = ("plugin.py", "--listen", "unix:s", "--grace", "60", "--no-reflection")
    with running(*words, said_last="  Reflection is off") as child, called("unix:s") as got:
        assert child.process.stderr is not None
        assert child.process.stderr.readline() == "called\n"
        with grpc.insecure_channel("unix:s") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            child.process.send_signal(signal.SIGTERM)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.RpcError):  # its end: the server drains
                next(watch)
        assert child.process.stderr.readline() == (
            "Waiting up to 60 s for calls under way; stop again to cancel them\n"
        )
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == (0, "")
    assert got in ([grpc.StatusCode.CANCELLED], [grpc.StatusCode.UNAVAILABLE])


def test_a_terminal_gets_a_table(folder: Path) -> None:
    """On a terminal the services are drawn as a table; the rest is as in a log."""
    write("s.proto", PROTO.replace("(Item); }", "(Item); rpc Do(Item) returns (Item); }"), NAME="s")
    write("plugin.py", PLUGIN, SOURCES="'s.proto'")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dynserve", "run", "plugin.py", "--listen", "unix:s"],
        stdout=theirs,
        env={**os.environ, "TERM": "dumb"},
    )
    os.close(theirs)
    with process, os.fdopen(ours, "r", newline="") as terminal:
        lines = []
        for line in terminal:
            lines.append(line.rstrip())
            if "grpcurl -plaintext -d" in line:
                break
        process.terminate()
        assert process.wait(SECONDS) == 0
    assert lines == [
        "service  method  kind         handler",
        "s.Items  Get     unary-unary  get",
        "         Do      unary-unary  no handler",
        "1 of 2 methods have no handler (--strict refuses to start)",
        "Listening on unix:s",
        "",
        """  dynserve call unix:s s.Items/Get -d '{"name": "text"}'""",
        "  grpcurl -plaintext unix:s list",
        "  grpcurl -plaintext unix:s describe s.Items",
        """  grpcurl -plaintext -d '{"name": "text"}' unix:s s.Items/Get""",
    ]


# ---- what goes wrong before it serves, in this process


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


def test_a_port_in_use(taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the address and the port; of several, the one that is taken."""
    write("s.proto", PROTO, NAME="s")
    words = ["run", "-p", "s.proto", "--listen", "127.0.0.1:0", "--listen", taken]
    assert invoke(words) == 1
    port = taken.rpartition(":")[2]
    assert capsys.readouterr() == (
        "",
        f"Error: cannot listen on {taken}: port {port} is taken; port 0 lets the system choose\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "err"),
    [
        (
            ["-p", "s.proto", "--strict"],
            1,
            "Error: 1 method has no handler (strict):\n  s.Items/Get\n",
        ),
        (["missing.py"], 2, "Error: missing.py: no such file or folder\n"),
        (
            ["missing"],
            2,
            "Error: missing: no such file or folder, and no plugin of that name is installed;"
            " a module is named as package.module:attribute\n",
        ),
        (["missing:app"], 2, "Error: missing:app: no module named 'missing'\n"),
        (
            ["own.py", "empty.py"],
            2,
            "Error: empty.py: its app has no source and no handler; write App('my.proto'), or give"
            " --proto\n",
        ),
        (
            ["bad.py"],
            1,
            'bad.proto:1:32: "Missing" is not defined.\n'
            '  1 | syntax = "proto3"; message M { Missing m = 1; }\n'
            "    |                                ^\n"
            "Error: nothing is served: a source does not compile\n",
        ),
        (
            ["lower.py"],
            2,
            "Error: lower.py: has no app; 'from dynserve import app' is a module of dynserve;"
            " write: from dynserve import App, and then app = App('my.proto')\n",
        ),
        (
            ["warned.py", "--listen", "nowhere"],
            2,
            "warned.proto:1:20: warning: Import s.proto is unused.\n"
            '  1 | syntax = "proto3"; import "s.proto";\n'
            "    |                    ^\n"
            "Error: cannot listen on nowhere: expected HOST:PORT, [IPV6]:PORT or unix:PATH\n",
        ),
        (
            ["wrong.py"],
            1,
            "Error: get (FOLDER/wrong.py:6): no method 'get' in any service of the schema;"
            " name one of 's.Other/Put'\n",
        ),
        (
            ["bare.py"],
            2,
            "Error: App(): has handlers but no source; write App('my.proto'), or give --proto\n",
        ),
        (["-p", "no.proto"], 2, "Error: no.proto: no such file or folder (looked in FOLDER)\n"),
        (
            ["own.py", "-p", "s.proto", "--strict", "--listen", "nowhere"],
            2,
            "Warning: --proto has no effect, every plugin names its own sources\n"
            "Error: cannot listen on nowhere: expected HOST:PORT, [IPV6]:PORT or unix:PATH\n",
        ),
    ],
)
def test_mistakes_of_the_user_have_no_stack_trace(
    words: list[str],
    code: int,
    err: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is one text that says what to write, and an exit code."""
    monkeypatch.setenv("DYNSERVE_CACHE_DIR", str(folder / "cache"))  # so that warnings are new
    write("s.proto", PROTO, NAME="s")
    write("own.py", PLUGIN, SOURCES="'s.proto'")
    write("bare.py", PLUGIN, SOURCES="")
    write("empty.py", "from dynserve import App\napp = App()\n")
    write("bad.py", "from dynserve import App\napp = App('bad.proto')\n")
    write("bad.proto", 'syntax = "proto3"; message M { Missing m = 1; }')
    write("lower.py", "from dynserve import app\n")
    write("warned.py", "from dynserve import App\napp = App('warned.proto')\n")
    write("warned.proto", 'syntax = "proto3"; import "s.proto";')
    write("other.proto", PROTO.replace("Items", "Other").replace("Get", "Put"), NAME="s")
    write("wrong.py", PLUGIN, SOURCES="'other.proto'")
    assert invoke(["run", *words]) == code
    assert capsys.readouterr() == ("", err.replace("FOLDER", str(folder)))


def test_options_reach_the_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--grace, --log-level and --no-reflection are what the server and the log are given."""
    given: dict[str, Any] = {}

    async def run(server: Server, *_told: Callable[[], None]) -> None:
        given.update(grace=server.settings.grace, services=list(server.routes.services))
        await asyncio.sleep(0)

    def configure(**options: Any) -> None:
        given.update(level=options["level"])

    monkeypatch.setattr(Server, "run", run)
    monkeypatch.setattr("logging.basicConfig", configure)
    write("s.proto", PROTO, NAME="s")
    words: Sequence[str] = ["--grace", "2.5", "--log-level", "Warning", "--no-reflection"]
    assert invoke(["run", "-p", "s.proto", *words]) == 0
    assert capsys.readouterr() == ("", "")
    assert given == {
        "grace": 2.5,
        "level": "WARNING",
        "services": ["grpc.health.v1.Health", "s.Items"],
    }
