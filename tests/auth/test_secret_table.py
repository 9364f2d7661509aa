"""The table of secrets: what it can be made of, and that a file is read again."""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import Any

import pytest

from dynserve.auth import BearerTokens
from dynserve.auth.secret_table import SecretTable
from dynserve.errors import CredentialsError
from dynserve.identity import Identity

A, B = "a" * 16, "b" * 20
MAKE_ONE = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'


def table(secrets: Any) -> SecretTable:
    return SecretTable(secrets, "bearer", "token", "tokens")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.touch(0o600)
    return path


def found(secrets: SecretTable) -> dict[str, str | None]:
    """Whose the two secrets are."""
    identities = {secret: secrets.identity_of(secret) for secret in (A, B)}
    return {secret: one.name if one else None for secret, one in identities.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"ada:{A}\neve:{B}\n", {A: "ada", B: "eve"}),
        (f"ada:{A}\nada:{B}", {A: "ada", B: "ada"}),
        (f"# people\n\n  ada : {A}  \n\t# {B}\n{B}\n", {A: "ada", B: "token-5"}),
        (f"\ufeffada:{A}\r\n\r\n", {A: "ada", B: None}),
        (f"ad\u00e5:{A}\n", {A: "ad\u00e5", B: None}),
    ],
)
def test_a_file_has_a_secret_in_each_line(
    file: Path, text: str, expected: dict[str, str | None]
) -> None:
    """A line is a name and a secret, or a secret; comments and empty lines are left out."""
    file.write_text(text, encoding="utf-8")
    assert found(table(file)) == expected
    assert found(table(str(file))) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there is no token in {path}, so nobody could call"),
        ("# nothing\n", "there is no token in {path}, so nobody could call"),
        (
            f"{A}\nada:short\n",
            "{path}: the token in line 2 has 5 characters, expected at least 16; " + MAKE_ONE,
        ),
        (
            "ada:\n",
            "{path}: the token in line 1 has 0 characters, expected at least 16; " + MAKE_ONE,
        ),
        (
            f":{A}\n",
            "{path}: the token in line 1 has no name: write name:secret, or only the secret",
        ),
        (
            f"ada:{A} x\n",
            "{path}: the token in line 1 has characters other than printable ASCII without"
            " spaces, so it cannot be sent",
        ),
        (
            f"ada:{A}\u00e9\n",
            "{path}: the token in line 1 has characters other than printable ASCII without"
            " spaces, so it cannot be sent",
        ),
        (
            f"ada:{'x' * 8193}\n",
            "{path}: the token in line 1 has 8193 characters, expected at most 8192",
        ),
        (f"ada:{A}\n\neve:{A}\n", "{path}: the token in line 3 is that of 'ada' too"),
        ("x" * (1024 * 1024 + 1), "{path} is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_makes_no_sense(file: Path, text: str, problem: str) -> None:
    """An error names the line, and shows no secret."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CredentialsError) as raised:
        table(file)
    assert str(raised.value) == "tokens: " + problem.format(path=repr(str(file)))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no text are each named."""
    (tmp_path / "binary").write_bytes(b"ada:\xff\xfe")
    (tmp_path / "binary").chmod(0o600)
    texts = []
    for name in ("missing", ".", "binary"):
        with pytest.raises(CredentialsError) as raised:
            table(tmp_path / name)
        texts.append(str(raised.value))
    assert texts == [
        f"tokens: cannot read {str(tmp_path / 'missing')!r}: No such file or directory",
        f"tokens: {str(tmp_path)!r} is not a regular file",
        f"tokens: {str(tmp_path / 'binary')!r}: it is not UTF-8 text",
    ]


@pytest.mark.parametrize(
    ("secrets", "problem"),
    [
        ({}, "there is no token, so nobody could call"),
        (
            {"short": "ada"},
            f"the token of 'ada' has 5 characters, expected at least 16; {MAKE_ONE}",
        ),
        ({A: ""}, "the token of '' has no name: write name:secret, or only the secret"),
        ({A: 5}, "the token of 5 and its name are to be str"),
        ({b"x" * 16: "ada"}, "the token of 'ada' and its name are to be str"),
    ],
)
def test_a_mapping_that_makes_no_sense(secrets: Any, problem: str) -> None:
    """The names are shown, the secrets never."""
    with pytest.raises(CredentialsError) as raised:
        table(secrets)
    assert str(raised.value) == f"tokens: {problem}"


def test_what_is_neither_a_mapping_nor_a_path() -> None:
    """A list of tokens has no names, and may not show up in the error."""
    with pytest.raises(TypeError) as raised:
        table([A])
    expected = "tokens: got a list, expected a mapping from token to name, or the path of a file"
    assert str(raised.value) == expected


def test_all_entries_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up takes the same for each: the first is compared as the last, and all of it."""
    compared: list[tuple[int, int]] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append((len(known), len(given)))
        return known == given

    monkeypatch.setattr(hmac, "compare_digest", compare)
    secrets = table({A: "first", B: "middle", "c" * 30: "last"})
    counts = []
    for secret in (A, B, "c" * 30, "x"):
        compared.clear()
        secrets.identity_of(secret)
        counts.append(compared.copy())
    assert counts == [[(32, 32)] * 3] * 4


def test_a_changed_file_is_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A line gives or takes access; what makes no sense changes nothing, and is told once."""
    monkeypatch.setattr("dynserve.auth.watched._CHECK_SECONDS", 0.0)
    caplog.set_level("INFO", "dynserve.auth")
    file.write_text(f"ada:{A}")
    secrets = table(file)
    seen = [found(secrets)]
    for text in (f"eve:{B}\nada:{A}", f"eve:{B}", "eve:short", f"bob:{B}", ""):
        file.write_text(text)
        seen.append(found(secrets))
    file.unlink()
    seen.append(found(secrets))
    file.write_text(f"ada:{A}")
    file.chmod(0o600)
    seen.append(found(secrets))
    path = str(file)
    assert seen == [
        {A: "ada", B: None},
        {A: "ada", B: "eve"},
        {A: None, B: "eve"},
        {A: None, B: "eve"},
        {A: None, B: "bob"},
        {A: None, B: None},
        {A: None, B: None},
        {A: "ada", B: None},
    ]
    stays = "what was read before stays in use"
    short = f"{path!r}: the token in line 1 has 5 characters, expected at least 16; {MAKE_ONE}"
    again = f"{path} was read again"
    assert [record.getMessage() for record in caplog.records] == [
        again,
        again,
        f"{stays}: {short}",
        again,
        again,
        f"{stays}: cannot read {path!r}: No such file or directory",
        again,
    ]


def test_a_file_is_looked_at_once_a_second(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call costs no more than a look at the clock."""
    now = [100.0]
    monkeypatch.setattr("dynserve.auth.watched.time.monotonic", lambda: now[0])
    file.write_text(f"ada:{A}")
    secrets = table(file)
    file.write_text(f"eve:{B}")
    seen = []
    for seconds in (0.0, 0.9, 0.2, 0.0):
        now[0] += seconds
        seen.append(found(secrets)[B])
    assert seen == [None, None, "eve", "eve"]


def test_one_caller_checks_and_nobody_waits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one call reads the file, others are served by what was read before."""
    monkeypatch.setattr("dynserve.auth.watched._CHECK_SECONDS", 0.0)
    file.write_text(f"ada:{A}")
    secrets = table(file)
    during: list[Any] = []
    read = Path.open

    def slow(path: Path, *arguments: Any) -> Any:
        during.append(found(secrets))
        return read(path, *arguments)

    file.write_text(f"eve:{B}")
    monkeypatch.setattr(Path, "open", slow)
    assert (found(secrets), during) == ({A: None, B: "eve"}, [{A: "ada", B: None}])


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights than a mode")
@pytest.mark.parametrize(
    ("mode", "is_open"),
    [(0o600, False), (0o640, False), (0o644, True), (0o602, True), (0o400, False)],
)
def test_a_file_that_everyone_may_read(
    file: Path, mode: int, is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The log warns of it, with the command that ends it; it is served all the same."""
    file.write_text(f"ada:{A}")
    file.chmod(mode)
    identity = table(file).identity_of(A)
    warning = f"{file} is open to everyone on this machine; run: chmod 600 {file}"
    logged = [record.getMessage() for record in caplog.records]
    assert (identity, logged) == (Identity("ada", "bearer"), [warning] if is_open else [])


def test_an_authenticator_follows_its_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BearerTokens shows what the file has now."""
    monkeypatch.setattr("dynserve.auth.watched._CHECK_SECONDS", 0.0)
    file.write_text(f"{A}\n{B}")
    tokens = BearerTokens(file)
    shown = [repr(tokens)]
    file.write_text(A)
    shown.append(repr(tokens))
    path = repr(str(file))
    assert shown == [f"BearerTokens({path}, 2 tokens)", f"BearerTokens({path}, 1 token)"]
