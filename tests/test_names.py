"""Finding a method by as much of its name as is known."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynserve.names import Alike, Name, Names, one_of, plain, quoted

LIST, GET, OTHER = Name("a.S", "ListAll"), Name("a.S", "GetIt"), Name("b.S", "Get_It")
names = Names([LIST, GET, OTHER])


@pytest.mark.parametrize(
    ("wanted", "exactly", "alike"),
    [
        ("ListAll", [LIST], [LIST]),
        ("list_all", [], [LIST]),
        ("GetIt", [GET], [GET, OTHER]),
        ("get_it", [], [GET, OTHER]),
        ("nothing", [], []),
    ],
)
def test_methods_are_found_exactly_and_alike(
    wanted: str, exactly: list[Name], alike: list[Name]
) -> None:
    """The exact name finds itself; case and underscores do not matter for what is alike."""
    assert (names.exactly(wanted), names.alike(wanted)) == (exactly, alike)


@pytest.mark.parametrize(
    ("wanted", "in_full", "text"),
    [
        ("ListAl", False, "; did you mean 'ListAll'?"),
        ("ListAl", True, "; did you mean 'a.S/ListAll'?"),
        ("list_al", True, "; did you mean 'a.S/ListAll'?"),
        ("q", False, "; name one of 'ListAll', 'GetIt', 'Get_It'"),
        ("q", True, "; name one of 'a.S/ListAll', 'a.S/GetIt', 'b.S/Get_It'"),
    ],
)
def test_an_error_ends_with_what_may_be_meant(wanted: str, in_full: bool, text: str) -> None:
    """The nearest names, or else the names that there are; in full where the service is open."""
    assert names.near(wanted, in_full) == text


def test_of_no_methods_none_is_near() -> None:
    """Without methods an error has nothing to add."""
    assert (Names([]).near("Get", False), one_of([])) == ("", "")


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("v1.Greeter", ["a.v2.Greeter", "b.greeter"]),
        ("a.v2.Greter", ["a.v2.Greeter", "b.greeter"]),
        ("a.v2.Greetre", ["a.v2.Greeter", "b.greeter"]),
        ("ListPlace", ["c.ListPlaces"]),
        ("Place", []),
        ("q", []),
        ("", []),
    ],
)
def test_what_is_alike(wanted: str, near: list[str]) -> None:
    """The same last component in any package comes alone, else those that are spelled alike."""
    names = Alike(["a.v2.Greeter", "b.greeter", "c.ListPlaces", "d.X"])
    assert names.near(wanted) == near


def test_a_search_costs_little_whatever_is_asked_for() -> None:
    """Of thousands of long names, and for the worst of names, one search is far below 1 ms."""
    letters = random.Random(1)
    names = ["a.b." + "".join(letters.choices("abcdeghiklm", k=90)) for _ in range(5000)]
    alike = Alike(names)
    asked = ["x" * 20_000, *("".join(letters.sample(name, len(name))) for name in names[:200])]
    started = time.process_time()
    for name in asked:
        alike.near(name)
    assert (time.process_time() - started) / len(asked) < 0.001


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.B", "'a.B'"),
        ("x" * 198, f"'{'x' * 198}'"),
        ("x" * 201, f"'{'x' * 199}..."),
        ("\x7f" * 1_000_000, "'" + ("\\x7f" * 50)[:199] + "..."),
        ("", "''"),
    ],
)
def test_a_peers_name_is_told_again_in_short(name: str, text: str) -> None:
    """Quoted, and cut: a status has little room, and a log is for reading."""
    assert quoted(name) == text


@given(st.text("abzABZ_"))
@settings(max_examples=50, deadline=None)
def test_plain_names_are_one_for_all_spellings(name: str) -> None:
    """Whatever the case and the underscores, the plain name is the same."""
    assert plain(name) == plain(name.upper()) == plain(f"_{name}_") == plain(plain(name))
