"""What is compared: each variant is a name and a command that serves bench.Echo on a port.

The variants named hand-… are what the others are set against. A server in another language is one
more line here.
"""

from __future__ import annotations

from dataclasses import dataclass

from workspace import SERVERS, Workspace

PORT = "{port}"


@dataclass(frozen=True, slots=True)
class Variant:
    """A server: `command` follows the interpreter, with {port} where the port goes."""

    name: str
    command: tuple[str, ...]
    cold: bool = False  # its cache folder is a new one at each start

    def argv(self, workspace: Workspace, port: int) -> list[str]:
        """The whole command line."""
        return [workspace.python, *(word.replace(PORT, str(port)) for word in self.command)]


def _script(name: str, *arguments: str) -> tuple[str, ...]:
    return (str(SERVERS / name), PORT, *arguments)


_HAND_AIO = Variant("hand-aio", _script("hand_aio.py"))
_RUN_PLUGIN = (
    *("-m", "dynserve", "run", str(SERVERS / "echo_plugin.py")),
    *("--listen", f"127.0.0.1:{PORT}"),
)
_APP = _script("dynserve_app.py", "async", "queue")

THROUGHPUT = (
    _HAND_AIO,
    Variant("hand-aio-sync", _script("hand_aio.py", "sync")),
    Variant("hand-sync", _script("hand_sync.py")),
    *(
        Variant(f"dynserve {engine} {world}", _script("dynserve_app.py", world, engine))
        for engine in ("aio", "queue")
        for world in ("async", "sync")
    ),
)

START = (
    _HAND_AIO,
    Variant("hand-aio + reflection + health", _script("hand_aio.py", "builtin")),
    Variant("dynserve server.py, cached", _APP),
    Variant("dynserve server.py, cold", _APP, cold=True),
    Variant("dynserve run plugin, cached", _RUN_PLUGIN),
    Variant("dynserve run plugin, cold", _RUN_PLUGIN, cold=True),
)

# Ways to open a descriptor set; schema_probe.py has the code of each.
SCHEMA = ("eager DescriptorPool", "dynserve Schema.load")
