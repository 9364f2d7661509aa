"""``import dynserve``: what it brings, and what it leaves alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dynserve

ROOT = Path(__file__).parents[1]


def child(program: str) -> Any:
    """Run a program in a fresh interpreter; what it prints, read as JSON."""
    measuring = ("COVERAGE_", "COV_")  # coverage measures children by an import of its own
    environment = {k: v for k, v in os.environ.items() if not k.startswith(measuring)}
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        env=environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_import_changes_nothing_in_the_process() -> None:
    """Import paths, hooks, logging, warnings, signals, environment: all as grpcio left them."""
    before, after, imports_as_before = child(
        """
import json, logging, os, signal, sys, threading, warnings
path, hooks = list(sys.path), list(sys.meta_path)
import grpc.aio  # adds a null handler to its logger

def state():
    return {
        "path": list(sys.path),
        "meta_path": [repr(finder) for finder in sys.meta_path],
        "path_hooks": [repr(hook) for hook in sys.path_hooks],
        "excepthook": repr(sys.excepthook),
        "root": [repr(h) for h in logging.root.handlers] + [logging.root.level],
        "loggers": {
            name: [repr(logger.handlers), logger.level, logger.propagate, logger.disabled]
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger)
            and (logger.handlers or logger.level or not logger.propagate or logger.disabled)
        },
        "warnings": [repr(f) for f in warnings.filters],
        "signals": [repr(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
        "environment": dict(os.environ),
        "threads": threading.active_count(),
    }

before = state()
from dynserve import *
print(json.dumps([before, state(), sys.path == path and sys.meta_path == hooks]))
"""
    )
    assert after == before
    assert imports_as_before


def test_import_adds_nothing_to_the_default_descriptor_pool() -> None:
    """No generated module comes with the import, so nobody's default pool has files of ours."""
    found = child(
        """
import json, sys
from dynserve import *
from google.protobuf import descriptor_pool
pool = descriptor_pool.Default()
names = ["google/protobuf/descriptor.proto", "google/protobuf/any.proto",
         "grpc/health/v1/health.proto", "grpc_health/v1/health.proto",
         "grpc_reflection/v1alpha/reflection.proto", "google/rpc/status.proto"]
def has(name):
    try:
        pool.FindFileByName(name)
    except KeyError:
        return False
    return True
print(json.dumps([[n for n in names if has(n)], [m for m in sys.modules if "_pb2" in m]]))
"""
    )
    assert found == [[], []]


def test_import_pulls_in_only_grpc_and_protobuf() -> None:
    """No command line, terminal or compiler; of the standard library nothing slow and unused."""
    third_party, slow = child(
        """
import json, sys
import grpc.aio  # imports the empty packages grpc_tools, grpc_health, grpc_reflection, if installed
before = set(sys.modules)
from dynserve import *
new = set(sys.modules) - before
slow = ["importlib.metadata", "difflib", "tempfile", "email", "http", "unittest", "dynserve.cli"]
print(json.dumps([
    sorted({n.partition(".")[0] for n in new} - sys.stdlib_module_names),
    [name for name in slow if name in new],
]))
"""
    )
    assert (third_party, slow) == (["dynserve", "google"], [])


def test_a_start_from_the_cache_loads_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what only a compilation, an error, a conversion, or the first call of reflection or
    health needs, nor the slow parts of the standard library, unless asyncio, grpcio or protobuf
    bring them anyway."""
    monkeypatch.setenv("DYNSERVE_CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "a.proto"
    source.write_text(
        'syntax = "proto3"; package a; import "google/protobuf/empty.proto";'
        "message M { google.protobuf.Empty empty = 1; } service S { rpc Do(M) returns (M); }"
    )
    assert child(
        f"""
from dynserve import Schema
from dynserve.schema import evidence
evidence._RECENT = 0
Schema.load({str(source)!r})
print("true")
"""
    )
    others = child(
        """
import asyncio, grpc, grpc.aio, json, sys
import google.protobuf.descriptor_pb2, google.protobuf.descriptor_pool
import google.protobuf.message_factory
print(json.dumps(list(sys.modules)))
"""
    )
    own = child(
        f"""
import json, sys
from dynserve import App
app = App({str(source)!r})
app.add(lambda request: request, "a.S/Do")
app.server("127.0.0.1:0")
message = app.schema.message("a.M")
app.schema.convert(message(), message)  # what a handler returns
print(json.dumps(list(sys.modules)))
"""
    )
    late = [
        *("pathlib", "urllib.parse", "ipaddress", "glob", "fnmatch", "tempfile", "subprocess"),
        *("hashlib", "dataclasses", "difflib", "mmap", "importlib.metadata", "email", "http"),
        *(
            f"dynserve.{name}"
            for name in (
                *("cli", "plugins", "builtin.catalog", "schema.compiler", "schema.diagnostics"),
                *("schema.hints", "schema.refusal", "schema.values", "schema.well_known"),
                *("schema.comments", "schema.declarations", "schema.options", "schema.imports"),
            )
        ),
        *("grpc_health.v1.health_pb2", "grpc_reflection.v1alpha.reflection_pb2"),
    ]
    assert {"dynserve.schema.compiled", "dynserve.builtin.reflection"} <= set(own)
    assert [name for name in late if name in own and name not in others] == []


def test_version_is_that_of_the_installed_package() -> None:
    """``__version__`` is read from the metadata, when it is asked for."""
    assert dynserve.__version__ == importlib.metadata.version("dynserve")


def test_other_names_are_not_made_up() -> None:
    """A name that dynserve does not have is an AttributeError, as of any module."""
    with pytest.raises(AttributeError) as caught:
        dynserve.Ap  # type: ignore[attr-defined] # noqa: B018
    assert str(caught.value) == "module 'dynserve' has no attribute 'Ap'"


def test_changelog_begins_with_the_version() -> None:
    """The changelog's newest version is the package's."""
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == dynserve.__version__


def test_public_names_are_there() -> None:
    """Everything in ``__all__``, which the linter sorts, is there and has a docstring."""
    assert set(dynserve.__all__) <= set(dir(dynserve))
    assert [name for name in dynserve.__all__ if not getattr(dynserve, name).__doc__] == []
