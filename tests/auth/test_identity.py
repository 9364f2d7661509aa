"""Identity: a value that shows nothing of its claims."""

from __future__ import annotations

import copy
import pickle

import pytest

from dynserve.identity import Identity


def test_two_are_equal_by_all_that_they_say() -> None:
    """Name, scheme and claims make an identity; one without claims has none."""
    ada = Identity("ada", "jwt", {"sub": "ada"})
    assert ada == Identity("ada", "jwt", {"sub": "ada"})
    assert hash(ada) == hash(Identity("ada", "jwt", {"sub": "ada"}))
    assert ada != Identity("ada", "jwt")
    assert ada != Identity("ada", "bearer", {"sub": "ada"})
    assert Identity("ada", "jwt") == Identity("ada", "jwt", {})


def test_text_shows_no_claims() -> None:
    """What a log says of an identity is its name and its scheme."""
    assert repr(Identity("ada", "jwt", {"email": "a@b"})) == "Identity(name='ada', scheme='jwt')"


def test_it_does_not_change() -> None:
    """It is frozen, has no room for more, and can be copied and pickled."""
    ada = Identity("ada", "jwt")
    with pytest.raises(AttributeError, match="changed: 'name' cannot be set"):
        ada.name = "eve"
    with pytest.raises(AttributeError, match="changed: 'more' cannot be set"):
        ada.more = 1
    with pytest.raises(AttributeError, match="changed: 'name' cannot be deleted"):
        del ada.name
    assert (copy.deepcopy(ada), pickle.loads(pickle.dumps(ada))) == (ada, ada)
