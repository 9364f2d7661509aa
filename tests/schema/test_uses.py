"""The types that a file uses."""

from __future__ import annotations

from dynserve import Schema
from dynserve.schema.descriptors import parse_file
from dynserve.schema.uses import Use, uses_of

SOURCE = """
    syntax = "proto2";
    package p;
    enum E { A = 0; }
    message M {
      optional M self = 1;
      map<string, E> named = 2;
      extensions 10 to 20;
      message In { optional E e = 1; extend M { optional int32 inner = 11; } }
    }
    extend M { optional In2 outer = 10; }
    message In2 {}
    service S { rpc Do(M) returns (stream In2); }
"""


def test_every_use_is_found() -> None:
    """By fields, map entries, extensions in files and in messages, and methods."""
    index = Schema.load(SOURCE, cache=False).index
    (name,) = index.files
    assert list(uses_of(parse_file(index.raw(name)))) == [
        Use("p", ".p.In2", False),
        Use("p", ".p.M", False),
        Use("p.M", ".p.M", False),
        Use("p.M", ".p.M.NamedEntry", False),
        Use("p.M.NamedEntry", ".p.E", True),
        Use("p.M.In", ".p.E", True),
        Use("p.M.In", ".p.M", False),
        Use("p", ".p.M", False),
        Use("p", ".p.In2", False),
    ]


def test_a_name_is_looked_up_from_the_inside_out() -> None:
    """A full name means itself; any other is looked up in each scope around it."""
    assert list(Use("a.b.M", "c.N", False).meanings()) == ["a.b.M.c.N", "a.b.c.N", "a.c.N", "c.N"]
    assert list(Use("a.b.M", ".c.N", False).meanings()) == ["c.N"]
    assert Use("a", ".c.N", False).full_name == Use("a", "c.N", False).full_name == "c.N"
