"""A tree of many small .proto files, as large API repositories have them: imports and services."""

from __future__ import annotations

from pathlib import Path

from workspace import Workspace

PER_FOLDER = 10
SERVICE_EVERY = 5  # one file in five has a service

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


def last_service(files: int) -> str:
    """The full name of a service near the end of the tree, which has imports behind it."""
    n = (files - 1) // SERVICE_EVERY * SERVICE_EVERY
    return f"tree.p{n // PER_FOLDER:04d}.Things{n}"


def build(files: int, workspace: Workspace) -> Path:
    """Writes the tree, compiles it once, and returns the path of its descriptor set."""
    root = workspace.folder / "tree"
    names = [_path(n) for n in range(files)]
    for n, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_source(n))
    target = workspace.folder / "set.binpb"
    # The names stand in a file: that many do not fit on every system's command line.
    arguments = workspace.folder / "protoc.args"
    flags = [f"-I{root}", "--include_imports", "--include_source_info"]
    arguments.write_text("\n".join([*flags, f"--descriptor_set_out={target}", *names]))
    workspace.protoc(f"@{arguments}")
    return target


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
