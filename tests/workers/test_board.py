"""What the workers say about health, put together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynserve.workers.board import HealthBoard, merged

SERVICES = st.sampled_from(["", "pkg.Shop", "pkg.Bank"])
STATUSES = st.dictionaries(SERVICES, st.booleans())
WORKERS = st.integers(0, 4)
STEPS = st.lists(st.tuples(WORKERS, st.one_of(st.none(), STATUSES)), max_size=30)


def test_a_service_is_serving_where_all_who_speak_of_it_say_so() -> None:
    """One that says otherwise is enough; who says nothing does not count."""
    said = [{"a": True, "b": True, "": True}, {"a": True, "b": False}, {"": False, "c": False}]
    assert merged(*said) == {"a": True, "b": False, "": False, "c": False}
    assert merged() == {}


@given(STEPS)
def test_only_the_last_words_of_those_who_are_there_count(
    steps: list[tuple[int, dict[str, bool] | None]],
) -> None:
    """Whatever was said before, and by whom that left, makes no difference."""
    board = HealthBoard()
    last: dict[int, dict[str, bool]] = {}
    for worker, said in steps:
        if said is None:
            board.leave(worker)
            last.pop(worker, None)
        else:
            board.say(worker, said)
            last[worker] = said
    for worker in range(5):
        others = [said for one, said in last.items() if one != worker]
        services = {service for said in others for service in said}
        assert board.others(worker) == {
            service: all(said.get(service, True) for said in others) for service in services
        }


@given(st.lists(STATUSES, max_size=6), st.randoms())
def test_it_does_not_matter_who_speaks_first(said: list[dict[str, bool]], random: object) -> None:
    """Nor how often; and what is merged in parts is the same."""
    shuffled = list(said)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merged(*said) == merged(*shuffled) == merged(*said, *shuffled)
    assert merged(*said) == merged(merged(*said[:2]), merged(*said[2:]))


def test_what_was_said_is_kept_as_it_was() -> None:
    """A change of what was given is no word."""
    board, said = HealthBoard(), {"a": False}
    board.say(1, said)
    said["a"] = True
    assert board.others(2) == {"a": False}
