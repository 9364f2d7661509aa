"""What Envoy has to know of a schema."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from dynserve import DescriptorError, Schema
from dynserve.envoy import transcoding

SHOP = """
    syntax = "proto3"; package shop;
    import "google/api/annotations.proto";
    // A comment.
    service Shop { rpc Get(Item) returns (Item) {
      option (google.api.http) = {get: "/v1/{name}"}; } }
    message Item { string name = 1; }
"""


def files_in(data: bytes) -> dict[str, bytes]:
    """The files of a set by name, in their order."""
    files = FileDescriptorSet.FromString(data).file
    return {file.name: file.SerializeToString() for file in files}


def in_order(data: bytes) -> bool:
    """Whether each file comes after those that it imports."""
    seen: set[str] = set()
    for file in FileDescriptorSet.FromString(data).file:
        if not seen.issuperset(file.dependency):
            return False
        seen.add(file.name)
    return True


def test_services_and_all_that_they_import() -> None:
    """Nothing is missing, each file is after its imports, and comments stay here."""
    schema = Schema.load(SHOP)
    (name,) = schema.declared_files
    found = transcoding([schema], auto_mapping=True, json_proto_names=True, json_defaults=True)
    assert found.services == ("shop.Shop",)
    assert (found.auto_mapping, found.json_proto_names, found.json_defaults) == (True, True, True)
    assert sorted(files_in(found.descriptor_set)) == sorted(
        [
            name,
            "google/api/annotations.proto",
            "google/api/http.proto",
            "google/protobuf/descriptor.proto",
            "google/protobuf/duration.proto",
            "google/rpc/error_details.proto",
        ]
    )
    assert in_order(found.descriptor_set)
    assert not any(
        file.HasField("source_code_info")
        for file in FileDescriptorSet.FromString(found.descriptor_set).file
    )
    opened = Schema.load(found.descriptor_set)
    options = opened.service("shop.Shop").methods["Get"].options
    assert options["google.api.http"].get == "/v1/{name}"


def test_what_is_not_needed_is_left_out() -> None:
    """A file without services that none imports is no business of Envoy's."""
    source = 'syntax = "proto3"; package other; message Unused {}'
    found = transcoding([Schema.load(SHOP, source)])
    assert len(files_in(found.descriptor_set)) == 6


def test_several_schemas(tmp_path: Path) -> None:
    """Plugins side by side: the services of all, and a file that they share once."""
    (tmp_path / "store.proto").write_text(SHOP.replace("shop", "store").replace("Shop", "Store"))
    found = transcoding([Schema.load(SHOP), Schema.load(tmp_path)])
    assert found.services == ("shop.Shop", "store.Store")
    assert len(files_in(found.descriptor_set)) == 7
    assert in_order(found.descriptor_set)


def test_the_users_own_details_are_kept() -> None:
    """A schema that has error_details.proto brings it, and no second one is added."""
    source = 'syntax = "proto3"; import "google/rpc/error_details.proto";' + (
        "service S { rpc Do(google.rpc.ErrorInfo) returns (google.rpc.ErrorInfo); }"
    )
    found = transcoding([Schema.load(source)])
    names = [file.name for file in FileDescriptorSet.FromString(found.descriptor_set).file]
    assert names.count("google/rpc/error_details.proto") == 1
    assert len(names) == len(set(names)) == 3


def test_two_files_of_one_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Envoy has one pool of types, so plugins that clash need a configuration each."""
    schemas = []
    for text in (SHOP, SHOP.replace("string name", "bytes name")):
        folder = tmp_path_factory.mktemp("plugin")
        (folder / "shop.proto").write_text(text)
        schemas.append(Schema.load(folder))
    with pytest.raises(DescriptorError) as caught:
        transcoding(schemas)
    assert str(caught.value) == (
        "shop.proto: two plugins have different files of this name, and Envoy takes one;"
        " write a configuration for each of them"
    )


def test_a_schema_without_services() -> None:
    """There is nothing to call."""
    found = transcoding([Schema.load('syntax = "proto3"; message M {}')])
    assert found.services == ()
