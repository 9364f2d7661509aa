"""What is compared: each variant is a name and a command that serves bench.Echo on a port.

`grpc.server` and `grpc.aio` are hand-written servers with generated code, which the others are set
against; `c++` is what the C core can do. A server in another language is one more line here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import tools
from workspace import HERE, SERVERS, Workspace

PORT = "{port}"
MANY = "{many}"  # the folder with a thousand services
GRPCLIB = ("grpclib==0.4.9",)
CONNECT = ("connectrpc==0.13.0", "pyvoy==1.3.0")
NODE = ("@grpc/grpc-js@1.14.7", "@grpc/proto-loader@0.8.1")


@dataclass(frozen=True, slots=True)
class Program:
    """What stands in front of a variant's command, and what its environment has beside ours."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """A server, whose handlers block a thread (`sync`), or do not."""

    name: str
    command: tuple[str, ...] = (PORT,)
    sync: bool = False
    cold: bool = False  # its cache folder is a new one at each start
    only_say: bool = False  # it differs from another in that method alone
    program: Callable[[], Program] = lambda: Program((sys.executable,))

    def argv(self, workspace: Workspace, port: int) -> list[str]:
        """The whole command line."""
        given = {PORT: str(port), MANY: str(workspace.folder / "many")}
        words = []
        for word in self.command:
            for mark, value in given.items():
                word = word.replace(mark, value)
            words.append(word)
        return [*self.program().argv, *words]

    def environment(self, workspace: Workspace) -> dict[str, str]:
        """Ours, and what the program needs; of two search paths, both."""
        env = workspace.environment(self.cold)
        for name, value in self.program().env.items():
            env[name] = os.pathsep.join(filter(None, (value, env.get(name))))
        return env


class Tooled(Protocol):
    """What can be left out where its tools are missing."""

    @property
    def name(self) -> str: ...
    @property
    def program(self) -> Callable[[], Program]: ...


T = TypeVar("T", bound=Tooled)


def available(all_of: Sequence[T], words: Sequence[str], skipped: list[str]) -> list[T]:
    """Those with one of the words in their name whose tools are there; installs what it can."""
    found = []
    for each in all_of:
        if words and not any(word in each.name for word in words):
            continue
        try:
            each.program()
        except tools.Missing as error:
            line = f"{each.name} is left out: {error}"
            if line not in skipped:
                skipped.append(line)
                print(line, file=sys.stderr)
            continue
        found.append(each)
    return found


def _script(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(SERVERS / name), PORT, *arguments)


def _grpclib() -> Program:
    return Program((sys.executable,), {"PYTHONPATH": str(tools.pip(*GRPCLIB))})


def _pyvoy() -> Program:
    folder = tools.pip(*CONNECT)
    program = (sys.executable, str(folder / "bin" / "pyvoy"))
    return Program(program, {"PYTHONPATH": str(folder)})


def node() -> Program:
    """Node, with the packages that its programs here ask for."""
    folder = tools.npm(*NODE)
    return Program((tools.need("node", "apt-get install nodejs"),), {"NODE_PATH": str(folder)})


def buf() -> Program:
    """The compiler of buf.build."""
    return Program((tools.need("buf", "npm install -g @bufbuild/buf"),))


def protoc() -> Program:
    """The compiler that grpcio-tools has inside."""
    return Program((sys.executable, "-m", "grpc_tools.protoc"))


def _cpp() -> Program:
    return Program((str(tools.cpp("server")),))


def _dynserve(kind: str, engine: str, *rest: str) -> tuple[str, ...]:
    return _script("dynserve_app.py", kind, engine, *rest)


_JS = (str(SERVERS / "grpc_js.js"), PORT, str(HERE / "echo.proto"))
_SERVER = Variant("grpc.server", _script("hand_sync.py"), sync=True)
_AIO = Variant("grpc.aio", _script("hand_aio.py"))
_PEERS = (
    Variant("grpclib", _script("grpclib_app.py"), program=_grpclib),
    Variant("connectrpc", ("--port", PORT, "connect_app"), program=_pyvoy),
    Variant("grpc-js", _JS, program=node),
    Variant("c++", program=_cpp),
)
_DYNSERVE = tuple(
    Variant(f"dynserve {engine} {world}", _dynserve(world, engine), sync=world == "sync")
    for engine in ("queue", "aio")
    for world in ("sync", "async")
)

THROUGHPUT = (
    *_DYNSERVE,
    *(
        Variant(
            f"dynserve queue {world}, context",
            _dynserve(f"{world}-context", "queue"),
            sync=world == "sync",
            only_say=True,
        )
        for world in ("sync", "async")
    ),
    _SERVER,
    _AIO,
    Variant("grpc.aio, sync handlers", _script("hand_aio.py", "sync"), sync=True),
    *_PEERS,
)

# A stream takes a thread of grpc.server's pool: for a thousand streams it needs as many.
OPEN = (
    *_DYNSERVE,
    Variant("grpc.server", _script("hand_sync.py", "1100"), sync=True),
    _AIO,
    *_PEERS,
)

PLAIN = tuple(
    Variant(
        f"dynserve queue {world}" + (f", {name}" if name else ""),
        _script("plain_app.py", world, without) if without else _dynserve(world, "queue"),
        sync=world == "sync",
    )
    for world, name, without in (
        ("sync", "", ""),
        ("sync", "all on workers", "quick"),
        ("sync", "messages one by one", "joined"),
        ("async", "", ""),
        ("async", "a thread polls", "lead"),
        ("async", "a thread polls, uvloop", "own-loop"),
        ("async", "messages one by one", "joined"),
    )
)

GROWTH = tuple(
    Variant(
        f"dynserve queue {world}, {'5,000' if rest else '5'} methods",
        _dynserve(world, "queue", *rest),
        sync=world == "sync",
    )
    for world in ("sync", "async")
    for rest in ((), (MANY,))
)

_RUN_PLUGIN = (
    *("-m", "dynserve", "run", str(SERVERS / "echo_plugin.py")),
    *("--listen", f"127.0.0.1:{PORT}"),
)
_APP_MANY = _dynserve("async", "queue", MANY)
START = (
    Variant("grpc.server", _script("hand_sync.py"), sync=True),
    _AIO,
    Variant("grpc.aio + reflection + health", _script("hand_aio.py", "builtin")),
    Variant("dynserve server.py, cached", _script("start_app.py")),
    Variant("dynserve server.py, cold", _script("start_app.py"), cold=True),
    Variant("dynserve server.py, 5,000 methods, cached", _APP_MANY),
    Variant("dynserve server.py, 5,000 methods, cold", _APP_MANY, cold=True),
    Variant("dynserve run plugin, cached", _RUN_PLUGIN),
    Variant("dynserve run plugin, cold", _RUN_PLUGIN, cold=True),
    *_PEERS,
)
