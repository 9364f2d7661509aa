"""Plugins: from what a person names to an App."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynserve import App, CompileError, PluginError, TargetError
from dynserve.app import Defaults
from dynserve.plugins import load

PROTO = 'syntax = "proto3"; package p; message M {} service S { rpc Do(M) returns (M); }'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; what is imported from it is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    modules = dict(sys.modules)
    yield tmp_path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]


def write(path: str, text: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def services_of(app: App) -> tuple[str, ...]:
    return app.schema.declared_services


# ---- what can be named

APP = "from dynserve import App\napp = App('s.proto')\n"


@pytest.mark.parametrize("target", ["plug", "plug/", "./plug", "plug/plugin.py", "plug/other.py"])
def test_files_and_folders(target: str) -> None:
    """A .py file, or a folder with a plugin.py; sources are looked up beside it."""
    write("plug/s.proto", PROTO)
    write("plug/plugin.py", APP)
    write("plug/other.py", APP)
    path = list(sys.path)
    assert services_of(load(target)) == ("p.S",)
    assert sys.path == path


def test_a_file_may_have_any_name() -> None:
    """A plugin's file is not imported by its name, so the name need not be an identifier."""
    write("s.proto", PROTO)
    write("my-plugin 2.0.py", APP)
    assert services_of(load("my-plugin 2.0.py")) == ("p.S",)


def test_neighbours_are_imported_relatively() -> None:
    """A plugin's folder is a package; two plugins with neighbours of one name do not meet."""
    for number in ("1", "2"):
        write(f"plug{number}/plugin.py", "from .names import app\nfrom . import deep\n")
        write(f"plug{number}/names.py", f"from dynserve import App\napp = App('{number}.proto')\n")
        write(f"plug{number}/{number}.proto", PROTO.replace("package p", f"package p{number}"))
        write(f"plug{number}/deep/__init__.py", "from ..names import app as same\n")
    assert [services_of(load(f"plug{number}")) for number in "12"] == [("p1.S",), ("p2.S",)]


def test_a_plugin_can_define_dataclasses() -> None:
    """The module is in sys.modules while it runs, as some of the standard library expects."""
    write(
        "plugin.py",
        "from __future__ import annotations\n"
        "from dataclasses import dataclass, field\n"
        "from dynserve import App\n"
        "@dataclass\nclass D:\n    names: list[str] = field(default_factory=list)\n"
        "app = App()\n",
    )
    assert load("plugin.py").takes_default_sources


@pytest.mark.parametrize(
    ("target", "services"),
    [
        ("package.service:app", ("p.S",)),
        ("package.service:second", ("q.S",)),
        ("package.service:", ("p.S",)),
        ("package:only", ("p.S",)),
    ],
)
def test_modules(target: str, services: tuple[str, ...], folder: Path) -> None:
    """``package.module:attribute`` is imported, from the working directory too."""
    write("s.proto", PROTO)
    write("q.proto", PROTO.replace("package p", "package q"))
    write("package/__init__.py", "from dynserve import App\nonly = App('s.proto')\n")
    write("package/service.py", APP + "second = App('q.proto')\n")
    assert services_of(load(target)) == services
    assert sys.path[0] == str(folder)


def install(name: str, points: str) -> None:
    """A package's metadata in the working directory, which is put on the import path."""
    write(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    write(f"{name}-1.0.dist-info/entry_points.txt", f"[dynserve.plugins]\n{points}\n")
    sys.path.insert(0, str(Path.cwd()))


def test_entry_points() -> None:
    """An installed package offers plugins by name, in the group ``dynserve.plugins``."""
    install("shop", "shop = shop_plugin:app")
    write("s.proto", PROTO)
    write("shop_plugin.py", APP)
    assert services_of(load("shop")) == ("p.S",)


def test_sources_of_an_installed_plugin_are_beside_it(folder: Path) -> None:
    """A package brings its .proto files, and is served from any working directory."""
    write("site/shop_package/__init__.py", "")
    write("site/shop_package/service.py", APP)
    write("site/shop_package/s.proto", PROTO)
    write("site/single.py", APP)
    write("site/s.proto", PROTO.replace("package p", "package q"))
    points = "[dynserve.plugins]\nshop = shop_package.service:app\n"
    write("site/shop-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    write("site/shop-1.0.dist-info/entry_points.txt", points)
    sys.path.insert(0, str(folder / "site"))
    assert services_of(load("shop")) == ("p.S",)
    del sys.modules["shop_package.service"]
    assert services_of(load("shop_package.service:app")) == ("p.S",)
    assert services_of(load("single:app")) == ("q.S",)


@pytest.mark.parametrize(
    ("text", "services"),
    [
        ("from dynserve import App\nanything = App('s.proto')\n", ("p.S",)),
        ("from dynserve import App\none = App()\napp = App('s.proto')\n", ("p.S",)),
        ("from dynserve import App\none = App('s.proto')\nalias = one\n", ("p.S",)),
    ],
)
def test_which_app_of_a_module(text: str, services: tuple[str, ...]) -> None:
    """The one that is called app, or else the only one there is."""
    write("s.proto", PROTO)
    write("plugin.py", text)
    assert services_of(load("plugin.py")) == services


def test_defaults_are_for_the_apps_of_the_plugin() -> None:
    """What the command line gives reaches the apps that the plugin makes, however it is named."""
    write("s.proto", PROTO)
    write("plugin.py", "from dynserve import App\napp = App()\n")
    install("bare", "bare = plugin:app")
    given = Defaults(("s.proto",))
    for target in ("plugin.py", "bare"):
        assert services_of(load(target, given)) == ("p.S",)
    del sys.modules["plugin"]
    assert services_of(load("plugin:app", given)) == ("p.S",)


# ---- what is not there


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("empty", "the folder has no plugin.py"),
        ("missing.py", "no such file or folder"),
        ("some/where", "no such file or folder"),
        (
            "s.proto",
            "not a plugin by its name; a plugin is a .py file (to serve a schema: --proto s.proto)",
        ),
        ("notes.txt", "not a plugin by its name; a plugin is a .py file"),
        (
            "missing",
            "no such file or folder, and no plugin of that name is installed; a module is named as"
            " package.module:attribute",
        ),
        (
            "shp",
            "no such file or folder, and no plugin of that name is installed; did you mean 'shop'?",
        ),
        (
            "package",
            "the folder has no plugin.py",
        ),
        (
            "package.inner",
            "no such file or folder, and no plugin of that name is installed; did you mean"
            " 'package.inner:app'?",
        ),
        (
            "package.outer",
            "no such file or folder, and no plugin of that name is installed; a module is named as"
            " package.module:attribute",
        ),
        ("none.py:app", "the app of a file is the one named 'app'; write none.py"),
        ("./none.py:app", "the app of a file is the one named 'app'; write ./none.py"),
        (
            "lower.py",
            "has no app; 'from dynserve import app' is a module of dynserve; write: from dynserve"
            " import App, and then app = App('my.proto')",
        ),
        ("wrong", "is of type int, expected a dynserve.App"),
        ("missing:app", "no module named 'missing'"),
        ("package.missing:app", "no module named 'package.missing'"),
        ("missing.module:app", "no module named 'missing'"),
        (":app", "'' is not a module's name; expected package.module:attribute"),
        (".service:app", "'.service' is not a module's name; expected package.module:attribute"),
        ("a-b:app", "'a-b' is not a module's name; expected package.module:attribute"),
        ("package:ap", "module 'package' has no 'ap'; did you mean 'app'?"),
        ("package:number", "is of type int, expected a dynserve.App"),
        ("none.py", "has no app; it needs a line such as: app = App('my.proto')"),
        ("several.py", "has several apps: one, two; name the one to serve 'app'"),
    ],
)
def test_a_target_that_is_not_there(target: str, problem: str) -> None:
    """The words of the command were wrong: exit code 2, and what to write instead."""
    Path("empty").mkdir()
    write("s.proto", PROTO)
    write("notes.txt", "")
    write("none.py", "from dynserve import App\n")
    write("several.py", "from dynserve import App\none = App()\ntwo = App()\n")
    write("package/__init__.py", "from dynserve import App\napp = App()\nnumber = 3\n")
    write("package/inner.py", "")
    write("lower.py", "from dynserve import app\n")
    install("shop", "shop = package:app\nwrong = package:number")
    with pytest.raises(TargetError) as caught:
        load(target)
    assert str(caught.value) == f"{target}: {problem}"
    assert caught.value.exit_code == 2


# ---- what fails to import


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
        ("raise ValueError", "ValueError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("from dynserve import Ap", None),
        ("def f(:", "SyntaxError: invalid syntax (plugin.py, line 1)"),
        ("from dynserve import App\nApp().add(3)", None),
    ],
)
@pytest.mark.parametrize("target", ["plugin.py", "plugin:app", "named"])
def test_a_plugin_that_fails_to_import(target: str, text: str, summary: str | None) -> None:
    """The plugin's own exception is the cause, and is named; the module is not kept."""
    write("plugin.py", text)
    install("named", "named = plugin:app")
    modules = set(sys.modules)
    with pytest.raises(PluginError) as caught:
        load(target)
    cause = caught.value.__cause__
    expected = summary or f"{type(cause).__name__}: {cause}"
    assert str(caught.value) == f"{target}: importing it failed: {expected}"
    assert caught.value.exit_code == 1
    assert {name for name in sys.modules.keys() - modules if "plugin" in name} == set()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("import data", "from . import data"),
        ("from data import x", "from . import data"),
        ("import tables.one", "from . import tables"),
    ],
)
def test_an_absolute_import_of_a_neighbour_has_a_hint(text: str, hint: str) -> None:
    """A plugin's folder is not on the import path; the error says what to write."""
    write("plug/plugin.py", text)
    write("plug/data.py", "x = 1")
    write("plug/tables/one.py", "")
    with pytest.raises(PluginError) as caught:
        load("plug")
    name = str(caught.value.__cause__)
    assert str(caught.value) == (
        f"plug: importing it failed: ModuleNotFoundError: {name}\n"
        f"  a neighbour of the plugin is imported relatively: {hint}"
    )


def test_the_module_of_that_name_is_not_the_class() -> None:
    """``from dynserve import app`` is possible, and of no use; the error says what to write."""
    write("plugin.py", "from dynserve import app\n@app.rpc\ndef f(request): ...\n")
    with pytest.raises(PluginError) as caught:
        load("plugin.py")
    assert str(caught.value) == (
        "plugin.py: importing it failed: AttributeError: module 'dynserve.app' has no attribute"
        " 'rpc'\n"
        "  'from dynserve import app' is a module of dynserve; write: from dynserve import App, and"
        " then app = App('my.proto')"
    )


def test_a_plugin_that_serves_itself_is_told_how_not_to() -> None:
    """app.run() at the top of a module would serve while it is loaded."""
    write("s.proto", PROTO)
    write("plugin.py", APP + "app.run('127.0.0.1:0')\n")
    with pytest.raises(PluginError) as caught:
        load("plugin.py")
    assert str(caught.value) == (
        "plugin.py: importing it failed: RuntimeError: app.run() in a module that is loaded as a"
        " plugin would serve it twice; put it under: if __name__ == '__main__':"
    )


def test_a_modules_own_import_error_is_not_a_missing_module() -> None:
    """'your module is missing' and 'your module failed to import' are two messages."""
    write("mine.py", "import theirs")
    with pytest.raises(PluginError) as caught:
        load("mine:app")
    assert str(caught.value) == (
        "mine:app: importing it failed: ModuleNotFoundError: No module named 'theirs'"
    )


def test_errors_of_dynserve_speak_for_themselves() -> None:
    """A plugin that uses its schema while it is imported reports that schema's errors."""
    write("bad.proto", 'syntax = "proto3"; message M { Missing m = 1; }')
    write("plugin.py", "from dynserve import App\napp = App('bad.proto')\napp.schema\n")
    with pytest.raises(CompileError) as caught:
        load("plugin.py")
    assert str(caught.value) == (
        'bad.proto:1:32: "Missing" is not defined.\n'
        '  1 | syntax = "proto3"; message M { Missing m = 1; }\n'
        "    |                                ^"
    )


@pytest.mark.parametrize("target", ["plugin.py", "plugin:app", "named"])
def test_an_interruption_is_no_error_of_the_plugin(target: str) -> None:
    """Ctrl-C while a plugin is imported stays what it is."""
    write("plugin.py", "raise KeyboardInterrupt")
    install("named", "named = plugin:app")
    with pytest.raises(KeyboardInterrupt):
        load(target)


def test_a_plugin_is_loaded_anew_each_time() -> None:
    """The same file named twice is two apps, with what it says now."""
    write("plugin.py", "from dynserve import App\napp = App()\n")
    apps: list[Any] = [load("plugin.py"), load("plugin.py")]
    assert apps[0] is not apps[1]
