"""Files of a server until they are whole; what a server can do to who asks."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

from dynserve.client.found import FoundFiles, TooMuchError
from dynserve.schema.descriptors import join
from dynserve.schema.index import Index


def file(name: str, *imports: str, **fields: object) -> bytes:
    made = FileDescriptorProto(name=name, dependency=imports, syntax="proto3", **fields)  # type: ignore[arg-type]
    return made.SerializeToString()


HOME = file("home", package="h", message_type=[DescriptorProto(name="M")])
USER = DescriptorProto(name="User")
USER.field.add(name="m", number=1, label=1, type=11, type_name=".h.M")


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


def test_public_imports_are_seen_through() -> None:
    """What declares a type by way of a public import is not imported once more."""
    index = Index()
    index.add_set("", join([file("known", "home", public_dependency=[0]), HOME]))
    found = FoundFiles(index, {})
    user = file("user", "middle", message_type=[USER])
    found.add([user, file("middle", "known", public_dependency=[0]), file("home2")])
    found.link()
    assert user in found.in_order()
    assert found.undeclared() == []


def test_what_is_not_imported_is_added() -> None:
    """The file that declares a type, found by the type."""
    index = Index()
    index.add_set("", join([HOME]))
    found = FoundFiles(index, {})
    found.add([file("user", message_type=[USER])])
    found.link()
    (linked,) = found.in_order()
    assert list(FileDescriptorProto.FromString(linked).dependency) == ["home"]


def test_following_imports_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many steps, however the files are entangled."""
    monkeypatch.setattr("dynserve.client.found.MAX_STEPS", 3)
    found = FoundFiles(Index(), {})
    public = [file(f"f{n}", f"f{n + 1}", public_dependency=[0]) for n in range(9)]
    found.add([HOME, file("user", "f0", message_type=[USER]), *public])
    with pytest.raises(TooMuchError):
        found.link()


def test_files_have_names() -> None:
    """One without would be taken for none."""
    with pytest.raises(DecodeError, match="a file has no name"):
        FoundFiles(Index(), {}).told([file("")])
