"""Trees of small .proto files, as large API repositories have them: imports and services."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workspace import Workspace

PER_FOLDER = 10
SERVICE_EVERY = 5  # one file in five has a service
MANY_SERVICES = 999

_FILE = """\
syntax = "proto3";

package tree.p{folder:04d};

{imports}
// Thing {n} of the tree, with the fields that things have.
message Thing{n} {{
  // The name, unique in its folder.
  string name = 1;
  // How it is doing.
  State{n} state = 2;
  repeated string labels = 3;
  map<string, int64> counts = 4;
  google.protobuf.Timestamp created = 5;
{fields}}}

// Asks for things.
message List{n}Request {{
  string parent = 1;
  int32 page_size = 2;
}}

// The things asked for.
message List{n}Response {{
  repeated Thing{n} things = 1;
  string next_page_token = 2;
}}

enum State{n} {{
  STATE{n}_UNSPECIFIED = 0;
  STATE{n}_ACTIVE = 1;
  STATE{n}_GONE = 2;
}}
"""
_SERVICE = """
// Things {n}, served.
service Things{n} {{
  // One after the other.
  rpc List(List{n}Request) returns (List{n}Response);
  rpc Watch(List{n}Request) returns (stream Thing{n});
  rpc Put(stream Thing{n}) returns (List{n}Response);
}}
"""
_MANY_TYPES = """\
syntax = "proto3";

package many;

message Request {
  string name = 1;
}

message Reply {
  string message = 1;
}
"""
_MANY_SERVICE = """\
syntax = "proto3";

package many;

import "many_types.proto";

service S{n:04d} {{
  rpc One(Request) returns (Reply);
  rpc Two(Request) returns (Reply);
  rpc Three(Request) returns (Reply);
  rpc Four(Request) returns (Reply);
  rpc Five(Request) returns (Reply);
}}
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree on disk."""

    files: int
    root: Path
    set: Path  # its descriptor set
    names: Path  # a text file with the path of each file, from the root

    @property
    def _last(self) -> int:
        """The number of the last file with a service, which has imports behind it."""
        return (self.files - 1) // SERVICE_EVERY * SERVICE_EVERY

    @property
    def service(self) -> str:
        """The full name of the service in it."""
        return f"tree.p{self._last // PER_FOLDER:04d}.Things{self._last}"

    @property
    def service_file(self) -> Path:
        """The file that has the service."""
        return self.root / _path(self._last)


def build(files: int, workspace: Workspace) -> Tree:
    """Writes the tree, and compiles it once."""
    folder = workspace.folder / f"tree-{files}"
    tree = Tree(files, folder / "protos", folder / "set.binpb", folder / "names.txt")
    paths = [_path(n) for n in range(files)]
    for n, name in enumerate(paths):
        path = tree.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_source(n))
    tree.names.write_text("\n".join(paths))
    workspace.protoc(*protoc_arguments(tree, tree.set))
    return tree


def protoc_arguments(tree: Tree, target: Path) -> list[str]:
    """What protoc is to compile; the names stand in a file, being too many for a command line."""
    flags = [f"-I{tree.root}", "--include_imports", "--include_source_info"]
    return [*flags, f"--descriptor_set_out={target}", f"@{tree.names}"]


def write_many(workspace: Workspace) -> None:
    """A folder that makes, with bench.Echo, a thousand services of five methods each."""
    folder = workspace.folder / "many"
    folder.mkdir()
    (folder / "many_types.proto").write_text(_MANY_TYPES)
    for n in range(1, MANY_SERVICES + 1):
        (folder / f"s{n:04d}.proto").write_text(_MANY_SERVICE.format(n=n))


def _path(n: int) -> str:
    return f"p{n // PER_FOLDER:04d}/thing_{n}.proto"


def _source(n: int) -> str:
    # Imports reach back in halves, so that the chains are as short as they are in real trees.
    uses = sorted({k for k in (n - n % PER_FOLDER, n // 2, n // 7) if k < n})
    imports = [
        'import "google/protobuf/timestamp.proto";',
        *(f'import "{_path(k)}";' for k in uses),
    ]
    fields = [
        f"  tree.p{k // PER_FOLDER:04d}.Thing{k} thing_{k} = {number};\n"
        for number, k in enumerate(uses, 6)
    ]
    text = _FILE.format(
        n=n, folder=n // PER_FOLDER, imports="\n".join(imports) + "\n", fields="".join(fields)
    )
    return text + (_SERVICE.format(n=n) if n % SERVICE_EVERY == 0 else "")
