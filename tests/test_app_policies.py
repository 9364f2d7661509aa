"""Whose authentication counts for what, and which settings of mounted apps hold."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from dynserve import App, BindError, CredentialsError, SettingError
from dynserve.identity import Identity
from tests.conftest import Client, Serve
from tests.real.programs import Program

Code = grpc.StatusCode
WAIT = 20
REFLECTION = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
HEALTH = "grpc.health.v1.Health/Check"
TOKENS = "ada:" + "t" * 16 + "\n"


def proto(package: str) -> str:
    return f"""
        syntax = "proto3"; package {package};
        message M {{ string text = 1; }}
        service S {{ rpc Do(M) returns (M); rpc Open(M) returns (M); }}
    """


def says(name: str) -> Callable[[Any], Identity | None]:
    """An authenticator that lets in who says that name."""

    def authenticate(context: Any) -> Identity | None:
        given = dict(context.invocation_metadata()).get("who")
        return Identity(name, "test") if given == name else None

    return authenticate


def make_app(package: str, *mounted: App, who: str = "", **policy: Any) -> App:
    """An app whose methods say who calls."""
    app = App(proto(package))

    def do(_request: Any, context: Any) -> Any:
        return {"text": context.identity.name if context.identity else "nobody"}

    for method in ("Do", "Open"):
        app.add(do, f"{package}.S/{method}")
    if who:
        app.auth(says(who), **policy)
    for other in mounted:
        app.mount(other)
    return app


def may(client: Client, path: str, who: str, request: bytes = b"") -> bool:
    """Whether somebody gets past authentication."""
    call: Any = client.channel.stream_stream(f"/{path}")
    try:
        list(call(iter([request]), metadata=[("who", who)] if who else (), timeout=WAIT))
    except grpc.RpcError as error:
        status: Any = error
        assert status.code() in (Code.UNAUTHENTICATED, Code.UNIMPLEMENTED)
        return status.code() is not Code.UNAUTHENTICATED
    return True


def open_to(client: Client, paths: list[str], names: str) -> dict[str, str]:
    """By path: who may call it, '-' being a stranger."""
    return {
        path: " ".join(
            who
            for who in names.split()
            if may(client, path, who.strip("-"), b"\x3a\x00" if path == REFLECTION else b"")
        )
        for path in paths
    }


def test_each_mounted_app_has_its_own_policy_or_its_parents(serve: Serve) -> None:
    """One without takes that of the nearest app that mounts it."""
    deep = make_app("deep")
    own = make_app("own", deep, who="eve", public=["own.S/Open"])
    root = make_app("root", make_app("plain"), own, who="ada", public=["root.S/Open"])
    paths = [f"{name}.S/{method}" for name in ("root", "plain", "own", "deep")
             for method in ("Do", "Open")]  # fmt: skip
    with serve(root) as client:
        found = open_to(client, [*paths, "no.Such/Method", REFLECTION, HEALTH], "- ada eve bob")
    assert found == {
        "root.S/Do": "ada",
        "root.S/Open": "- ada eve bob",
        "plain.S/Do": "ada",
        "plain.S/Open": "ada",
        "own.S/Do": "eve",
        "own.S/Open": "- ada eve bob",
        "deep.S/Do": "eve",
        "deep.S/Open": "eve",
        "no.Such/Method": "ada",
        REFLECTION: "ada",
        HEALTH: "- ada eve bob",
    }


def test_several_policies_guard_what_is_of_no_app(serve: Serve) -> None:
    """Where the app that is served has none, whoever may call one of the others may."""
    root = App()
    root.mount(make_app("first", who="ada"))
    root.mount(make_app("second", who="eve", health="required", reflection="open"))
    root.mount(make_app("third"))
    paths = ["first.S/Do", "second.S/Do", "third.S/Do", "no.Such/Method", REFLECTION, HEALTH]
    with serve(root) as client:
        found = open_to(client, paths, "- ada eve bob")
    assert found == {
        "first.S/Do": "ada",
        "second.S/Do": "eve",
        "third.S/Do": "- ada eve bob",
        "no.Such/Method": "ada eve",
        REFLECTION: "ada eve",  # not open, since one app wants it
        HEALTH: "ada eve",
    }


def test_an_app_that_is_open_beside_one_that_is_not(caplog: pytest.LogCaptureFixture) -> None:
    """It may not be meant to be: the log says so, once, when the server is made."""
    root, plain = App(), make_app("plain")
    root.mount(make_app("guarded", who="ada"))
    root.mount(plain)
    root.server()
    lines = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "dynserve.server"]
    assert lines == [
        (
            "WARNING",
            f"{plain.schema.label} is served without authentication beside an app that has some;"
            " say app.auth(...) on it, or on the app that both are mounted in",
        )
    ]


def test_an_app_that_is_mounted_twice_has_one_authentication() -> None:
    """Which of two counts nobody could tell; with its own there is no question."""
    shared = make_app("shared")
    root = App()
    root.mount(make_app("first", shared, who="ada"))
    root.mount(make_app("second", shared, who="eve"))
    with pytest.raises(BindError) as caught:
        root.server()
    assert list(caught.value.problems) == [
        "an app is mounted twice, under different authentication; give it its own"
    ]
    shared.auth(says("bob"))
    assert "shared.S" in root.server().routes.services


def test_where_all_leave_them_open_they_are(serve: Serve) -> None:
    """Reflection and health are open where every policy says so."""
    root = App()
    for name, who in (("first", "ada"), ("second", "eve")):
        root.mount(make_app(name, who=who, reflection="open"))
    with serve(root) as client:
        found = open_to(client, [REFLECTION, HEALTH, "no.Such/Method"], "- ada bob")
    assert found == {REFLECTION: "- ada bob", HEALTH: "- ada bob", "no.Such/Method": "ada"}


def test_the_policy_of_one_mounted_app_guards_alone(serve: Serve) -> None:
    """As ``dynserve run`` serves a plugin: mounted in an app that has nothing itself."""
    root = App()
    root.mount(make_app("only", who="ada", health="required"))
    with serve(root) as client:
        found = open_to(client, ["only.S/Do", "no.Such/Method", REFLECTION, HEALTH], "- ada bob")
    assert found == dict.fromkeys(found, "ada")


def test_a_misspelled_public_name_is_an_error() -> None:
    """It would stay closed, or, once somebody adds such a method, open; every one is told, once."""
    root = make_app("root", who="ada", public=["root.S/Opn", "root.S/*", "rot.S/*"])
    root.mount(make_app("other", who="eve", public=["other.S/Open", "root.S/Do", "other.T/Do"]))
    with pytest.raises(BindError) as caught:
        root.server()
    assert sorted(caught.value.problems) == [
        "public 'other.T/Do': no method that is served has that name; did you mean 'other.S/Do'"
        " or 'root.S/Do' or 'other.S/Open'?",
        "public 'root.S/Opn': no method that is served has that name; did you mean 'root.S/Open'"
        " or 'other.S/Open'?",
        "public 'rot.S/*': no method that is served has that name; did you mean 'root.S/Do'"
        " or 'root.S/Open'?",
    ]


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    """A file with the token of Ada."""
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    path.chmod(0o600)
    return str(path)


def test_a_misspelled_public_name_of_the_settings_is_told_once(tokens: str) -> None:
    """However many units the policy of the settings counts for."""
    root = make_app("root", make_app("other"))
    with pytest.raises(BindError) as caught:
        root.server(auth_tokens=tokens, auth_public=["root.S/Opn"])
    assert list(caught.value.problems) == [
        "public 'root.S/Opn': no method that is served has that name; did you mean 'root.S/Open'"
        " or 'other.S/Open'?"
    ]


def said(client: Client, path: str, **options: Any) -> str:
    call: Any = client.channel.stream_stream(f"/{path}")
    request = b"\x3a\x00" if path == REFLECTION else b""
    try:
        list(call(iter([request]), timeout=WAIT, **options))
    except grpc.RpcError as error:
        status: Any = error
        return f"{status.code().name}: {status.details()}"
    return "served"


@pytest.mark.parametrize("how", ["argument", "app", "mounted", "variable"])
def test_settings_guard_all_apps(
    serve: Serve, tokens: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given to the server, to the app, to one that is mounted, or by variables."""
    given: Any = {"auth_tokens": tokens, "auth_public": ["root.S/Open"], "auth_health": "required"}
    other = make_app("other")
    if how == "mounted":
        other = App(proto("other"), **given)
        other.add(lambda request: request, "other.S/Do")
    root = App(proto("root"), **(given if how == "app" else {}))
    for method in ("Do", "Open"):
        root.add(lambda request: request, f"root.S/{method}")
    root.mount(other)
    if how == "variable":
        for name, value in given.items():
            text = value if isinstance(value, str) else ",".join(value)
            monkeypatch.setenv(f"DYNSERVE_{name.upper()}", text)
    refused = "UNAUTHENTICATED: a bearer token is needed in metadata 'authorization'"
    with serve(root, **(given if how == "argument" else {})) as client:
        paths = ("root.S/Do", "root.S/Open", "other.S/Do", "no.Such/Do", HEALTH, REFLECTION)
        stranger = {path: said(client, path) for path in paths}
        metadata = [("authorization", "Bearer " + "t" * 16)]
        ada = {path: said(client, path, metadata=metadata) for path in paths}
    assert stranger == dict.fromkeys(paths, refused) | {"root.S/Open": "served"}
    unknown = {"no.Such/Do": "UNIMPLEMENTED: unknown service 'no.Such'"}
    assert ada == dict.fromkeys(paths, "served") | unknown


def test_settings_beside_an_apps_own_authentication(tokens: str) -> None:
    """Which of the two is meant nobody can tell."""
    root = App()
    root.mount(make_app("mounted", who="ada"))
    with pytest.raises(SettingError) as caught:
        root.server(auth_tokens=tokens)
    assert str(caught.value) == (
        f"got auth_tokens={tokens!r}, expected nothing: the app has authentication of its own"
    )


OPENINGS = pytest.mark.parametrize(
    ("name", "value"),
    [
        ("auth_public", ("mounted.S/Open",)),
        ("auth_health", "required"),
        ("auth_reflection", "open"),
    ],
)


@OPENINGS
def test_settings_of_a_policy_without_effect(name: str, value: Any) -> None:
    """They are for the authentication that settings ask for; nobody may think they hold."""
    with pytest.raises(SettingError) as caught:
        make_app("mounted", who="ada").server(**{name: value})
    assert str(caught.value) == (
        f"got {name}={value!r}, expected nothing: the app has authentication of its own"
    )


@OPENINGS
def test_settings_of_no_policy_at_all(name: str, value: Any) -> None:
    """What is open to everybody makes no sense where all is; the authenticator was forgotten."""
    with pytest.raises(SettingError) as caught:
        make_app("mounted").server(**{name: value})
    assert str(caught.value) == (
        f"got {name}={value!r}, expected auth_tokens, or another authenticator, beside it"
    )


def test_a_flag_and_a_variable_go_together(tokens: str, tmp_path: Path) -> None:
    """What is open is said by a variable, who may call by a flag: neither stands alone."""
    (tmp_path / "plugin.py").write_text(
        f"from dynserve import App\napp = App({proto('a')!r})\n"
        "app.add(lambda request: request, 'a.S/Open')\n"
    )
    command = [sys.executable, "-m", "dynserve", "run", "plugin.py", "--listen", "127.0.0.1:0"]
    env = {"DYNSERVE_AUTH_PUBLIC": "a.S/Open", "DYNSERVE_AUTH_REFLECTION": "open"}
    with Program.of([*command, "--auth-tokens", tokens], tmp_path, env) as program:
        with grpc.insecure_channel(program.address()) as channel:
            call: Any = channel.unary_unary("/a.S/Open")
            assert call(b"", timeout=WAIT) == b""
        program.signal(signal.SIGTERM)
        assert program.code() == 0


def test_a_bad_file_of_tokens_is_an_error(tmp_path: Path) -> None:
    """The setting is named."""
    missing = tmp_path / "none"
    with pytest.raises(CredentialsError, match=r"^auth_tokens: "):
        make_app("root").server(auth_tokens=missing)


def test_client_certificates_that_nobody_is_asked_for() -> None:
    """No client could ever call."""
    with pytest.raises(SettingError) as caught:
        make_app("root").server(auth_client_cert=["ada"])
    assert str(caught.value) == (
        "got auth_client_cert=('ada',), expected tls_client_ca beside it, for clients to be asked"
        " for a certificate"
    )


def test_an_app_has_authentication_once() -> None:
    """A second one would replace the first, or not."""
    app = App(proto("a"))
    authenticate = says("ada")
    app.auth(authenticate, public=["a.S/Open"])
    with pytest.raises(ValueError, match=r"^the app has authentication: ") as caught:
        app.auth(says("eve"))
    text = (
        f"the app has authentication: Policy({authenticate!r},"
        " open=['a.S/Open', 'grpc.health.v1.Health'])"
    )
    assert str(caught.value) == text


@pytest.mark.parametrize("given", [None, "token", Identity])
def test_what_is_no_authenticator(given: Any) -> None:
    """The error tells what one is; the app has none then."""
    app = App(proto("a"))
    with pytest.raises(TypeError) as caught:
        app.auth(given)
    assert str(caught.value) == (
        f"got {given!r} as an authenticator, expected a callable that takes the context and"
        " returns an Identity or None"
    )
    app.auth(says("ada"))


# ---- settings of mounted apps


def test_settings_of_mounted_apps_hold() -> None:
    """Where the app that mounts them says nothing; its own, and what is given, go before."""
    root = App(grace=1, threads=3)
    root.mount(App(proto("a"), grace=2, drain_wait=5, max_send_size=10))
    root.mount(App(proto("b"), drain_wait=5, max_metadata_size=2000))
    settings = root.server(max_send_size=20).settings
    names = ("grace", "threads", "drain_wait", "max_send_size", "max_metadata_size")
    assert [getattr(settings, name) for name in names] == [1, 3, 5, 20, 2000]


def test_settings_of_mounted_apps_that_clash() -> None:
    """One server cannot have both; the app that mounts them can say which."""
    apps = [App(proto("a"), drain_wait=5), App(proto("b"), drain_wait=6)]
    root = App()
    for app in apps:
        root.mount(app)
    with pytest.raises(SettingError) as caught:
        root.server()
    assert str(caught.value) == (
        "got drain_wait=6.0, expected what another app says that is mounted beside it: 5.0"
    )
    decides = App(drain_wait=7)
    for app in apps:
        decides.mount(app)
    assert decides.server().settings.drain_wait == 7.0


def test_an_app_goes_before_what_is_mounted_in_it() -> None:
    """Also where it is mounted itself, as ``dynserve run`` mounts every plugin."""
    plugin = App(proto("a"), drain_wait=5)
    plugin.mount(App(proto("b"), drain_wait=6))
    root = App()
    root.mount(plugin)
    assert plugin.server().settings.drain_wait == 5.0
    assert root.server().settings.drain_wait == 5.0
