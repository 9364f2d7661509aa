"""Files of a server until they are whole; what a server can do to who asks."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from dynserve.client.found import FoundFiles
from dynserve.schema.index import Index


def file(name: str, *imports: str, **fields: object) -> bytes:
    made = FileDescriptorProto(name=name, dependency=imports, syntax="proto3", **fields)  # type: ignore[arg-type]
    return made.SerializeToString()


def names(found: FoundFiles) -> list[str]:
    return [FileDescriptorProto.FromString(data).name for data in found.in_order()]


def test_a_file_comes_after_what_it_imports() -> None:
    """Also in a circle, which is refused when it is built."""
    found = FoundFiles(Index(), {})
    found.add([file("a", "b", "c"), file("b", "c"), file("c"), file("x", "y"), file("y", "x")])
    assert names(found) == ["c", "b", "a", "y", "x"]


def test_what_is_there_is_passed_over() -> None:
    """The first file of a name counts, and what the schema has is not taken again."""
    index = Index()
    index.add_set("", b"\x0a" + bytes([len(file("a"))]) + file("a"))
    found = FoundFiles(index, {})
    found.add([file("a", package="other"), file("b"), file("b", package="other")])
    assert names(found) == ["b"]
    assert found.in_order() == [file("b")]
    assert bool(found)
    assert not FoundFiles(index, {})


def test_imports_that_are_not_used_are_missing_too() -> None:
    """With those that import them; what is in the schema or among the files is not."""
    found = FoundFiles(Index(), {})
    found.add([file("a", "b", "n"), file("b", "n", "m")])
    assert found.missing() == {"n": ["a", "b"], "m": ["b"]}
