"""dynserve.schema.validate_proto: buf/validate/validate.proto, found without being a file."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from dynserve import CompileError, DescriptorError, Schema, SourceError
from dynserve.schema.validate_proto import NAME, rules_path, rules_text

from .conftest import Tree

protovalidate: Any = pytest.importorskip("protovalidate")

USER = """
syntax = "proto3";
package shop;
import "buf/validate/validate.proto";
message Item { string name = 1 [(buf.validate.field).string.min_len = 2]; }
"""
OTHER = USER.replace("Item", "Other")
OWN = """
syntax = "proto2";
package buf.validate;
import "google/protobuf/descriptor.proto";
message StringRules { optional uint64 min_len = 2; }
message FieldRules { optional StringRules string = 14; }
extend google.protobuf.FieldOptions { optional FieldRules field = 1159; }
"""


def test_the_text_compiles_to_what_it_was_made_from(tree: Tree) -> None:
    """Nothing is lost on the way from protovalidate's descriptors to text and back."""
    tree({NAME: rules_text().decode()})
    compiled = FileDescriptorProto.FromString(
        Schema.load(NAME, include=["."], cache=False).index.stripped(NAME)
    )
    made_from = FileDescriptorProto.FromString(
        protovalidate.ViolationsPb.desc().file.proto.to_binary()
    )
    for file in (compiled, made_from):
        _without_json_names(file)
    assert compiled == made_from


def _without_json_names(file: FileDescriptorProto) -> None:
    """Those are derived, and not each compiler writes them down."""
    holders: list[Any] = [file]
    while holders:
        holder = holders.pop()
        is_file = holder is file
        holders += holder.message_type if is_file else holder.nested_type
        for field in (*holder.extension, *(() if is_file else holder.field)):
            field.ClearField("json_name")


def test_an_import_of_it_resolves(tree: Tree) -> None:
    """A file, a text and a second file import it as it is, and both get the one there is."""
    tree({"item.proto": USER, "deep/other.proto": OTHER})
    schema = Schema.load("item.proto", "deep/other.proto", OTHER.replace("Other", "Third"))
    schema.build()
    assert list(schema.index.files)[-4:] == [
        NAME,
        "item.proto",
        "other.proto",
        "inline_3.proto",
    ]
    options = schema.message("buf.validate.FieldRules")(string={"min_len": 2})
    assert options.string.min_len == 2


def test_an_own_copy_counts(tree: Tree) -> None:
    """A user's own file of that name is what is imported, wherever it is found."""
    tree({"item.proto": USER, NAME: OWN})
    schema = Schema.load("item.proto", cache=False)
    assert schema.has_message("buf.validate.StringRules")
    assert not schema.has_message("buf.validate.Violations")


@pytest.mark.parametrize(
    "order", [("a/item.proto", "b/other.proto"), ("b/other.proto", "a/item.proto")]
)
def test_an_own_copy_that_only_one_importer_finds_counts_for_both(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, order: tuple[str, str]
) -> None:
    """Of the installed one and a copy, one schema has one: the copy, in either order."""
    folder = tree({"a/item.proto": USER, "b/other.proto": OTHER, f"b/{NAME}": OWN})
    monkeypatch.chdir(folder)
    schema = Schema.load(*order, cache=False)
    assert not schema.has_message("buf.validate.Violations")
    assert schema.has_message("shop.Item")
    assert schema.has_message("shop.Other")


def test_a_descriptor_set_that_lacks_it_is_completed() -> None:
    """What imports it and does not carry it gets the one that is installed."""
    schema = Schema.load(USER, cache=False)
    file = FileDescriptorProto.FromString(schema.index.stripped("inline_1.proto"))
    completed = Schema.load(FileDescriptorSet(file=[file]), cache=False)
    assert completed.index.raw(NAME) == schema.index.raw(NAME)


def test_the_compiled_set_is_cached_until_protovalidate_changes(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The text is printed once; another protovalidate is another file, and it is printed again."""
    monkeypatch.setenv("DYNSERVE_CACHE_DIR", str(tmp_path / "cache"))
    tree({"item.proto": USER})
    printed = []
    stands_for_it = tmp_path / "package.py"
    stands_for_it.write_text("")

    def text() -> bytes:
        printed.append(1)
        return OWN.encode()

    monkeypatch.setattr("dynserve.schema.imports.rules_text", text)
    monkeypatch.setattr("dynserve.schema.imports.rules_path", lambda: str(stands_for_it))
    monkeypatch.setattr("dynserve.schema.evidence._RECENT", 0)
    for _ in range(2):
        assert Schema.load("item.proto").has_message("buf.validate.StringRules")
    assert len(printed) == 1
    stands_for_it.write_text("# another")
    Schema.load("item.proto")
    assert len(printed) == 2


def test_without_protovalidate_it_is_not_found(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an import like any other that is missing, of a file and of a descriptor set."""
    schema = Schema.load(USER, cache=False)
    file = FileDescriptorProto.FromString(schema.index.stripped("inline_1.proto"))
    tree({"item.proto": USER})
    monkeypatch.setitem(sys.modules, "protovalidate", None)
    assert rules_path() is None
    with pytest.raises(CompileError) as caught:
        Schema.load("item.proto", cache=False)
    assert caught.value.diagnostics[0].message == f'Import "{NAME}" was not found.'
    with pytest.raises(DescriptorError) as refused:
        Schema.load(FileDescriptorSet(file=[file]), cache=False)
    assert str(refused.value) == (
        "FileDescriptorSet: 'inline_1.proto' imports 'buf/validate/validate.proto', which is"
        " missing (make the set with `protoc --include_imports` or `buf build`)"
    )


def test_a_protovalidate_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1 takes its file from elsewhere, so there is nothing to print."""
    monkeypatch.setitem(sys.modules, "protovalidate", ModuleType("protovalidate"))
    with pytest.raises(SourceError) as caught:
        rules_text()
    assert str(caught.value) == (
        "buf/validate/validate.proto: the protovalidate that is installed is older than 2.0, or"
        " broken; write `pip install 'dynserve[validate]'`"
    )
