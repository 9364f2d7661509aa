"""Keys from an issuer's server: when they are fetched, and what happens when they cannot be."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from dynserve.auth import JWT
from dynserve.testing import FakeAsyncContext, FakeContext
from tests.auth.asking import WORLDS, Answer, answer, ask, bearer, refusal
from tests.auth.issuing import AUDIENCE, ISSUER, KeyServer, jwk, key_server, token

UNAVAILABLE: Answer = (
    grpc.StatusCode.UNAVAILABLE,
    "tokens cannot be verified at the moment: their keys cannot be fetched; try again",
    (),
)
NOT_VALID = "the token is not valid"


class Clock:
    """The time that the sources of keys see."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    class Time:
        monotonic = staticmethod(clock)

    monkeypatch.setattr("dynserve.auth.key_sources.time", Time)
    return clock


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with key_server() as server:
        yield server


def verifier(server: KeyServer, **options: Any) -> JWT:
    return JWT(jwks=server.url, issuer=ISSUER, audience=AUDIENCE, **options)


def name(authenticate: Callable[[Any], Any], world: str = "sync", key: str = "first") -> Any:
    """The name in the identity, or the text of the refusal, of a token by that key."""
    found = answer(authenticate, world, bearer(token(name=key)))
    return getattr(found, "name", found)


def landed(authenticate: JWT) -> None:
    """Wait until no fetch runs."""
    flight = authenticate._keys._flight  # type: ignore[attr-defined]
    if flight is not None:
        flight.result(20)


def is_fetching(authenticate: JWT) -> bool:
    """Whether a fetch is under way."""
    return authenticate._keys._flight is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize("world", WORLDS)
def test_keys_are_fetched_once(world: str, server: KeyServer) -> None:
    """The first call has them fetched, the others use them."""
    authenticate = verifier(server)
    before = server.count
    assert [name(authenticate, world) for _ in range(20)] == ["ada"] * 20
    assert (before, server.count) == (0, 1)
    assert repr(authenticate).startswith(f"JWT(keys={server.url!r}, ")


def test_sync_callers_share_a_fetch(server: KeyServer) -> None:
    """Threads that arrive while the first fetch runs all wait for it, and there is no other."""
    server.hold.clear()
    authenticate = verifier(server)
    context = FakeContext(metadata=bearer(token()))
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(authenticate, context) for _ in range(16)]
        assert server.asked.acquire(timeout=20)
        assert not any(future.done() for future in futures)
        server.hold.set()
        names = [future.result(20).name for future in futures]
    assert (names, server.count) == (["ada"] * 16, 1)


def test_async_callers_share_a_fetch_and_leave_the_loop_free(server: KeyServer) -> None:
    """Calls on the loop wait for one fetch; the loop turns meanwhile, and a call may give up."""
    server.hold.clear()
    authenticate = verifier(server)

    async def main() -> list[str]:
        context = FakeAsyncContext(metadata=bearer(token()))
        tasks = [asyncio.ensure_future(authenticate.authenticate_async(context)) for _ in range(50)]
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, server.asked.acquire, True, 20)  # the loop turns
        assert not any(task.done() for task in tasks)
        tasks[0].cancel()
        assert isinstance(
            (await asyncio.gather(tasks[0], return_exceptions=True))[0], asyncio.CancelledError
        )
        server.hold.set()
        return [identity.name for identity in await asyncio.gather(*tasks[1:])]

    assert (asyncio.run(main()), server.count) == (["ada"] * 49, 1)


@pytest.mark.parametrize("world", WORLDS)
def test_a_new_key_is_fetched_when_a_token_names_it(
    world: str, server: KeyServer, clock: Clock
) -> None:
    """An issuer may start to use a new key at any time; it is accepted by the call that has it."""
    authenticate = verifier(server)
    found = [name(authenticate, world)]
    server.serve(jwk("ES256"), jwk("ES256", "second"))
    clock.now += 10
    found += [name(authenticate, world, "second"), name(authenticate, world)]
    assert (found, server.count) == (["ada", "ada", "ada"], 2)


@pytest.mark.parametrize("world", WORLDS)
def test_a_flood_of_unknown_keys_is_no_flood_of_fetches(
    world: str, server: KeyServer, clock: Clock
) -> None:
    """However many unknown ids are sent, there is one fetch in ten seconds."""
    authenticate = verifier(server)
    assert name(authenticate, world) == "ada"
    texts = set()
    for _ in range(3):
        clock.now += 10
        texts |= {
            answer(authenticate, world, bearer(token(header={"kid": f"unknown-{number}"})))
            for number in range(50)
        }
    assert (texts, server.count) == ({NOT_VALID}, 4)


def test_a_token_without_an_id_is_no_reason_to_fetch(server: KeyServer, clock: Clock) -> None:
    """It names no key that could be new."""
    server.serve(jwk("ES256"), jwk("ES256", "second"))
    authenticate = verifier(server)
    found = [answer(authenticate, "sync", bearer(token(header={"kid": None})))]
    clock.now += 60
    found.append(answer(authenticate, "sync", bearer(token(header={"kid": None}))))
    assert (found, server.count) == ([NOT_VALID, NOT_VALID], 1)


def test_nobody_waits_while_keys_are_renewed(server: KeyServer, clock: Clock) -> None:
    """After max_age they are fetched beside the calls; a key that is gone is accepted no more."""
    authenticate = verifier(server, max_age=300)
    found = [name(authenticate)]
    clock.now += 301
    server.serve(jwk("ES256", "second"))
    server.hold.clear()
    found.append(name(authenticate))  # with the fetch under way
    assert server.asked.acquire(timeout=20)
    assert server.asked.acquire(timeout=20)
    server.hold.set()
    landed(authenticate)
    found.append(name(authenticate))
    found.append(name(authenticate, key="second"))
    assert (found, server.count) == (["ada", "ada", NOT_VALID, "ada"], 2)


@pytest.mark.parametrize("world", WORLDS)
def test_calls_wait_where_keys_are_very_old(world: str, server: KeyServer, clock: Clock) -> None:
    """After an idle night, a key that was withdrawn is not accepted once more."""
    authenticate = verifier(server, max_age=300)
    found = [name(authenticate, world)]
    clock.now += 601
    server.serve(jwk("ES256", "second"))
    found += [name(authenticate, world), name(authenticate, world, "second")]
    assert (found, server.count) == (["ada", NOT_VALID, "ada"], 2)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("code", "body", "problem"),
    [
        (500, b"secret page", "the server answered with HTTP 500"),
        (200, b"secret page", "it is neither a JSON web key set nor a public key in PEM"),
        (
            200,
            b'{"keys": []}',
            "none of the 0 keys of the JSON web key set is a public key that can verify tokens",
        ),
    ],
)
def test_stale_keys_stay_while_the_server_is_ill(
    world: str,
    code: int,
    body: bytes,
    problem: str,
    server: KeyServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Known keys go on, however old; of unknown ones nobody can know. Fetches stay far apart."""
    authenticate = verifier(server)
    assert name(authenticate, world) == "ada"
    server.code, server.body = code, body
    for _ in range(3):
        clock.now += 10_000
        assert name(authenticate, world) == "ada"
        landed(authenticate)
        assert name(authenticate, world) == "ada"
    assert refusal(authenticate, world, bearer(token(name="second"))) == UNAVAILABLE
    assert server.count == 4
    stays = "; those that were fetched before stay in use"
    warning = f"the keys at {server.url} cannot be fetched: {problem}{stays}"
    warnings = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warnings == [warning] * 3
    server.code = 200
    server.serve(jwk("ES256", "second"))
    clock.now += 10
    assert name(authenticate, world, "second") == "ada"


@pytest.mark.parametrize("world", WORLDS)
def test_nobody_waits_for_a_server_that_has_failed(
    world: str, server: KeyServer, clock: Clock
) -> None:
    """However old the keys, calls do not stand still each time that an ill server is tried."""
    authenticate = verifier(server, timeout=60)
    assert name(authenticate, world) == "ada"
    server.code = 500
    clock.now += 10_000
    assert name(authenticate, world) == "ada"
    landed(authenticate)
    clock.now += 10_000
    server.hold.clear()
    assert name(authenticate, world) == "ada"
    assert is_fetching(authenticate)
    server.hold.set()
    landed(authenticate)


@pytest.mark.parametrize("world", WORLDS)
def test_without_any_keys(
    world: str, server: KeyServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """UNAVAILABLE, so that clients try again; a server that is down is not asked with each call."""
    authenticate = verifier(server)
    server.code = 503
    found = [refusal(authenticate, world, bearer(token())) for _ in range(5)]
    count = server.count
    server.code = 200
    clock.now += 10
    assert (found, count, name(authenticate, world)) == ([UNAVAILABLE] * 5, 1, "ada")
    logged = [one.getMessage() for one in caplog.records]
    warning = f"the keys at {server.url} cannot be fetched: the server answered with HTTP 503"
    assert logged == [warning]


@pytest.mark.parametrize("world", WORLDS)
def test_a_server_that_hangs(world: str, server: KeyServer, clock: Clock) -> None:
    """A call waits for a fetch as long as it may take, and no longer."""
    server.hold.clear()
    authenticate = verifier(server, timeout=0.1)
    started = time.monotonic()
    assert refusal(authenticate, world, bearer(token())) == UNAVAILABLE
    assert time.monotonic() - started < 10
    server.hold.set()
    landed(authenticate)


@pytest.mark.parametrize("world", WORLDS)
def test_an_unknown_key_does_not_hold_a_thread_for_long(
    world: str, server: KeyServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anyone can name an unknown key, so with keys at hand a call waits shorter than a fetch."""
    monkeypatch.setattr("dynserve.auth.key_sources._UNKNOWN_SECONDS", 0.05)
    authenticate = verifier(server, timeout=30)
    assert name(authenticate, world) == "ada"
    clock.now += 10
    server.hold.clear()
    assert refusal(authenticate, world, bearer(token(name="second"))) == UNAVAILABLE
    assert name(authenticate, world) == "ada"
    assert is_fetching(authenticate)
    server.hold.set()
    landed(authenticate)


def test_without_threads(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no thread can start, calls are refused as when the server is down, and later not."""
    authenticate = verifier(server, refetch_after=0)

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        found = [refusal(authenticate, "sync", bearer(token()))]
    assert (found, name(authenticate)) == ([UNAVAILABLE], "ada")
    warning = f"the keys at {server.url} cannot be fetched: no thread can start"
    assert [one.getMessage() for one in caplog.records] == [warning]


def test_a_loop_that_ends_while_a_fetch_runs(server: KeyServer) -> None:
    """A loop may end with calls that wait; the fetch goes on, and serves those after it."""
    server.hold.clear()
    authenticate = verifier(server)

    async def main() -> None:
        context = FakeAsyncContext(metadata=bearer(token()))
        task = asyncio.ensure_future(authenticate.authenticate_async(context))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    server.hold.set()
    landed(authenticate)
    assert (name(authenticate), server.count) == ("ada", 1)


@pytest.mark.parametrize(
    ("url", "is_warned"),
    [
        ("https://issuer.example/jwks.json", False),
        ("http://127.0.0.1:1/jwks.json", False),
        ("http://localhost/jwks.json", False),
        ("http://issuer.example/jwks.json", True),
        ("http://localhost.example/jwks.json", True),
        ("http://127.0.0.1.example/jwks.json", True),
        ("HTTP://issuer.example/jwks.json", True),
    ],
)
def test_keys_over_plain_http(url: str, is_warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The log warns where anyone on the way could put in keys of his own."""
    JWT(jwks=url, issuer=ISSUER, audience=AUDIENCE)
    warning = f"{url} is not https: who is on the way can put in keys and sign tokens"
    assert [one.getMessage() for one in caplog.records] == ([warning] if is_warned else [])


def test_asking_as_a_sync_handler_does(server: KeyServer) -> None:
    """Called, it returns an identity and nothing to be awaited, also while it has to fetch."""
    assert ask(verifier(server), "sync", bearer(token())).name == "ada"
