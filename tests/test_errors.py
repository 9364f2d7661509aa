"""dynserve.errors."""

from __future__ import annotations

import copy
import pickle
import time

import pytest

from dynserve import (
    AddressError,
    BindError,
    CompileError,
    CompilerError,
    DescriptorError,
    Diagnostic,
    DynserveError,
    MessageError,
    PluginError,
    SourceError,
    SymbolError,
    TargetError,
    UnhandledMethodsError,
)
from dynserve.errors import did_you_mean, nearest

WRONG = Diagnostic(
    "a.proto", 3, 5, '"Foo" is not defined.', "    Foo x = 1;", "a hint\nof two lines"
)
UNUSED = Diagnostic("b.proto", 1, 1, "warning: Import c.proto is unused.")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (TargetError("x.py", "no such file"), 2, "x.py: no such file"),
        (PluginError("x.py", "failed to import"), 1, "x.py: failed to import"),
        (
            PluginError("x.py", "no app", "write app = App()"),
            1,
            "x.py: no app\n  write app = App()",
        ),
        (SourceError("a.proto", "no such file"), 2, "a.proto: no such file"),
        (DescriptorError("a.pb", "damaged"), 1, "a.pb: damaged"),
        (
            CompileError([WRONG, UNUSED]),
            1,
            'a.proto:3:5: "Foo" is not defined.\n'
            "  3 |     Foo x = 1;\n"
            "    |     ^\n"
            "  a hint\n"
            "  of two lines\n"
            "b.proto:1:1: warning: Import c.proto is unused.",
        ),
        (CompilerError("crashed", ["a", "b"]), 1, "a, b: crashed"),
        (CompilerError("crashed", list("abcdefg")), 1, "a, b, c, d, e and 2 more: crashed"),
        (SymbolError("service", "p.S"), 1, "no service 'p.S' in the schema"),
        (
            SymbolError("service", "p.Greter", ["p.Greeter", "p.Unlike"]),
            1,
            "no service 'p.Greter' in the schema; did you mean 'p.Greeter'?",
        ),
        (
            SymbolError("message type", "x.Foo", ["a.Foo", "b.foo"]),
            1,
            "no message type 'x.Foo' in the schema; did you mean 'a.Foo' or 'b.foo'?",
        ),
        (MessageError("p.M.x", "got 1"), 1, "p.M.x: got 1"),
        (BindError(["one", "two"]), 1, "one\ntwo"),
        (UnhandledMethodsError(["p.S/A"]), 1, "1 method has no handler (strict):\n  p.S/A"),
        (
            UnhandledMethodsError(["p.S/A", "p.S/B"]),
            1,
            "2 methods have no handler (strict):\n  p.S/A\n  p.S/B",
        ),
        (AddressError("x:1", "in use"), 1, "cannot listen on x:1: in use"),
    ],
)
def test_every_error_has_its_text_and_exit_code(error: DynserveError, code: int, text: str) -> None:
    """The text of an error is made from its fields, and its class has the exit code."""
    assert str(error) == text
    assert error.exit_code == code


def test_errors_are_what_python_calls_them() -> None:
    """A missing symbol is a LookupError and a value that does not fit a TypeError."""
    assert isinstance(SymbolError("enum", "E"), LookupError)
    assert isinstance(MessageError("", ""), TypeError)


def test_a_message_error_is_seen_from_further_out() -> None:
    """A message error grows its path outwards and keeps its problem."""
    error = MessageError("[3]", "got 1").under(".items").under("p.M")
    assert (error.path, error.problem) == ("p.M.items[3]", "got 1")


def test_errors_can_be_copied_and_sent() -> None:
    """An error survives pickling with its fields, as between processes of a pool."""
    error = CompilerError("crashed", ["a.proto"])
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), str(again)) == (CompilerError, "a.proto: crashed")


@pytest.mark.parametrize(
    ("diagnostic", "text"),
    [
        (Diagnostic("a.proto", 0, 0, "File not found."), "a.proto: File not found."),
        (
            Diagnostic("a.proto", 12, 4, "no", "\t\té!"),
            "a.proto:12:4: no\n  12 | \t\té!\n     | \t\t ^",
        ),
        (
            Diagnostic("a.proto", 1, 500, "no", "x" * 499 + "!" + "y" * 499),
            f"a.proto:1:500: no\n  1 | {'x' * 79}!{'y' * 80}\n    | {' ' * 79}^",
        ),
        (
            Diagnostic("a.proto", 1, 2, "no", "x" * 1000),
            f"a.proto:1:2: no\n  1 | {'x' * 160}\n    |  ^",
        ),
    ],
)
def test_the_caret_stands_under_the_character(diagnostic: Diagnostic, text: str) -> None:
    """The caret points at the column, with tabs as they are, in a part of a line that is long."""
    assert str(diagnostic) == text


def test_a_warning_is_told_from_an_error() -> None:
    """A diagnostic of a file that compiles all the same says that it is a warning."""
    assert UNUSED.is_warning
    assert not WRONG.is_warning


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("p.S/get", ["p.S/Put", "p.S/Get"], ["p.S/Get"]),
        ("Greeter", ["q.Greter", "helloworld.Greeter"], ["helloworld.Greeter", "q.Greter"]),
        ("abc", [], []),
        ("abc", ["xyz"], []),
        ("item", ["items", "item_1", "item_2", "item_3", "item_4"], ["items", "item_1", "item_2"]),
        ("", ["a"], []),
    ],
)
def test_the_nearest_names_come_first(
    name: str, candidates: list[str], expected: list[str]
) -> None:
    """The same last component comes before what is only spelled alike, three names at most."""
    assert nearest(name, candidates) == expected


def test_did_you_mean_is_a_phrase_or_nothing() -> None:
    """The phrase names what is near, and is not there where nothing is."""
    assert did_you_mean("nam", ["name", "kind"]) == "; did you mean 'name'?"
    assert did_you_mean("nam", []) == ""


def test_the_search_is_bounded() -> None:
    """A name of a megabyte, from a peer, against ten thousand names costs no noticeable time."""
    began = time.perf_counter()
    assert nearest("x" * 1_000_000, [f"pkg.Service{n}" for n in range(10_000)]) == []
    assert nearest("y" * 200, ["z" * 200] * 10_000) == []
    assert time.perf_counter() - began < 2
