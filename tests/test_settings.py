"""Settings: one table for keyword arguments, flags and environment variables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dynserve import App, SettingError
from dynserve.settings import GROUPS, SETTINGS, Settings, checked_settings
from tests.echo import schema

ROOT = Path(__file__).parents[1]


def test_what_goes_before_what() -> None:
    """What is said for a server, then the environment, then the app's own, then the default."""
    app, environ = {"grace": 1, "threads": 1, "drain_wait": 1}, {"DYNSERVE_THREADS": "2"}
    environ["DYNSERVE_DRAIN_WAIT"] = "2"
    settings = Settings({"drain_wait": 3}, app, environ)
    found = settings.drain_wait, settings.threads, settings.grace, settings.stream_threads
    assert found == (3.0, 2, 1.0, 1000)


def test_servers_of_an_app_have_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """App(…) says what holds unless the environment, or app.server(…), says otherwise."""
    app = App(schema=schema, grace=1, threads=1)
    monkeypatch.setenv("DYNSERVE_THREADS", "2")
    settings = app.server(grace=3).settings
    assert (settings.grace, settings.threads) == (3.0, 2)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("strict", True, True),
        ("strict", "yes", True),
        ("reflection", " Off ", False),
        ("threads", 3, 3),
        ("threads", "3", 3),
        ("grace", 0, 0.0),
        ("grace", "2.5", 2.5),
        ("max_timeout", 7, 7.0),
        ("max_receive_size", 5, 5),
        ("max_receive_size", "64KiB", 65536),
        ("max_receive_size", "64k", 65536),
        ("max_receive_size", "4 MB", 4_000_000),
        ("unix_mode", 0o660, 0o660),
        ("unix_mode", "660", 0o660),
        ("unix_mode", "0o600", 0o600),
        ("access_log_sample", "0.25", 0.25),
        ("access_log", "json", "json"),
        ("auth_public", "a.B/C, a.D/*", ("a.B/C", "a.D/*")),
        ("auth_public", ["a.B/C"], ("a.B/C",)),
        ("tls_cert", Path("x.pem"), "x.pem"),
        ("metrics", "127.0.0.1:9090", "127.0.0.1:9090"),
        ("threads", None, None),
        ("max_queue_wait", None, None),
        ("max_queue_wait", "off", None),
        ("max_concurrent_streams", "off", None),
        ("auth_jwks", Path("keys.json"), "keys.json"),
    ],
)
def test_values(name: str, given: Any, value: Any) -> None:
    """As Python has them, and as a flag or a variable does."""
    assert checked_settings({name: given}) == {name: value}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("strict", "maybe", "a boolean: true or false"),
        ("strict", 1, "a boolean: true or false"),
        ("threads", 0, "a whole number, at least 1"),
        ("threads", 1.5, "a whole number, at least 1"),
        ("threads", True, "a whole number, at least 1"),
        ("threads", "many", "a whole number, at least 1"),
        ("threads", 1 << 31, "a whole number, at least 1"),
        ("grace", -1, "a number of seconds, 0 or more"),
        ("grace", math.nan, "a number of seconds, 0 or more"),
        ("max_timeout", 0, "a number of seconds above 0"),
        ("max_timeout", math.inf, "a number of seconds above 0"),
        ("max_timeout", True, "a number of seconds above 0"),
        ("max_receive_size", "4 miles", "a number of bytes, such as 4194304 or 4MiB"),
        ("max_receive_size", "-1", "a number of bytes, such as 4194304 or 4MiB"),
        ("unix_mode", "999", "an octal file mode such as 660"),
        ("unix_mode", 0, "an octal file mode such as 660"),
        ("unix_mode", 660, "an octal file mode such as 660"),
        ("access_log_sample", 1.5, "a share from 0 to 1"),
        ("access_log", "xml", "one of 'off', 'text', 'json'"),
        ("auth_public", [5], "words separated by commas"),
        ("tls_cert", "", "the path of a file"),
        ("tls_cert", 5, "the path of a file"),
        ("metrics", "", "a text"),
        ("max_metadata_size", None, "a number of bytes, such as 4194304 or 4MiB"),
        ("health", None, "a boolean: true or false"),
        ("grace", "off", "a number of seconds, 0 or more"),
        ("auth_client_cert", ",", "words separated by commas"),
    ],
)
def test_wrong_values(name: str, given: Any, expected: str) -> None:
    """The error has the name, what was given and what is expected; of a variable, its name."""
    with pytest.raises(SettingError) as caught:
        checked_settings({name: given})
    assert str(caught.value) == f"got {name}={given!r}, expected {expected}"
    if isinstance(given, str) and given:
        variable = f"DYNSERVE_{name.upper()}"
        with pytest.raises(SettingError) as caught:
            Settings({}, None, {variable: given})
        assert str(caught.value) == f"got {variable}={given!r}, expected {expected}"


def test_a_setting_that_is_none_is_named() -> None:
    """With the nearest that there is."""
    with pytest.raises(TypeError) as caught:
        App(schema=schema).server(drain_wiat=1)  # type: ignore[call-arg]
    assert str(caught.value) == "there is no setting 'drain_wiat'; did you mean 'drain_wait'?"


def test_an_empty_variable_says_nothing() -> None:
    """As one that is not set; but of security it is an error, and opens no server."""
    assert Settings({}, None, {"DYNSERVE_GRACE": ""}).grace == 10.0
    for name, expected in [
        ("TLS_CERT", "the path of a file"),
        ("AUTH_TOKENS", "the path of a file"),
        ("AUTH_CLIENT_CERT", "words separated by commas"),
    ]:
        with pytest.raises(SettingError) as caught:
            Settings({}, None, {f"DYNSERVE_{name}": ""})
        assert str(caught.value) == f"got DYNSERVE_{name}='', expected {expected}"


def test_defaults_are_values() -> None:
    """Each default is one that could be given, and reads in a table as what it is."""
    given = {name: setting.default for name, setting in SETTINGS.items()}
    assert checked_settings(given) == given


def test_a_variable_that_is_none_opens_no_server() -> None:
    """One of security that is misspelt is an error, which does not show what it has."""
    with pytest.raises(SettingError) as caught:
        Settings({}, None, {"DYNSERVE_AUTH_TOKEN": "s3cret", "DYNSERVE_CACHE_DIR": "x"})
    assert str(caught.value) == (
        "got DYNSERVE_AUTH_TOKEN='…', expected no variable of that name; did you mean"
        " 'DYNSERVE_AUTH_TOKENS' or 'DYNSERVE_AUTH_JWKS' or 'DYNSERVE_AUTH_API_KEYS'?"
    )


def test_the_keywords_are_typed() -> None:
    """What type checkers are told is the table."""
    source = (ROOT / "dynserve/settings.py").read_text("utf-8")
    head = "class ServerOptions(TypedDict, total=False):"
    block = source.partition(head)[2].partition("\n\n\n")[0]
    keys = [line.strip().partition(":")[0] for line in block.splitlines() if ": " in line]
    assert sorted(keys) == sorted(SETTINGS)
    assert [setting.name for group in GROUPS.values() for setting in group] == list(SETTINGS)
