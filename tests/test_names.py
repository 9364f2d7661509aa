"""Finding a method by as much of its name as is known."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynserve.names import Name, Names, one_of, plain

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


@given(st.text("abzABZ_"))
@settings(max_examples=50, deadline=None)
def test_plain_names_are_one_for_all_spellings(name: str) -> None:
    """Whatever the case and the underscores, the plain name is the same."""
    assert plain(name) == plain(name.upper()) == plain(f"_{name}_") == plain(plain(name))
