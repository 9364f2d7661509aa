"""dynserve.schema.toolchain."""

from __future__ import annotations

from grpc_tools import grpc_version

from dynserve.schema import Limits
from dynserve.schema.imports import SourceTree
from dynserve.schema.toolchain import FLAGS, key_of


def test_the_key_holds_all_that_decides() -> None:
    """A compilation is decided by protoc's version and flags, the files asked for and all texts; an
    entry's layout has a number."""
    tree = SourceTree(("a",), {"b": b"B", "a": b"A"}, {}, ())
    flags = [flag.encode() for flag in FLAGS]
    assert key_of(tree) == [
        b"2", grpc_version.VERSION.encode(), *flags, b"", b"a", b"a", b"A", b"b", b"B",
    ]  # fmt: skip


def test_places_do_not_decide() -> None:
    """Where the files lie does not change what they compile to."""
    texts = {"a": b"A"}
    assert key_of(SourceTree(("a",), texts, {}, ())) == key_of(
        SourceTree(("a",), texts, {"a": "/x/a"}, ())
    )


def test_the_default_limits() -> None:
    """A compilation has two minutes and 4 GiB, which is many times what googleapis takes."""
    assert Limits() == (120, 4 << 30)
