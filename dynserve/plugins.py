"""Plugins: from what a person names to an App.

A target is a .py file, a folder with a plugin.py, ``package.module:attribute``, or the name of an
entry point in the group ``dynserve.plugins``. A file is loaded as a package of its own, so that it
can import its neighbours relatively (``from . import data``); ``sys.path`` stays as it is. Only a
target that names a module puts the working directory on it, as ``python -m`` does.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from dynserve.app import App, Defaults, defaults
from dynserve.errors import DynserveError, PluginError, TargetError, did_you_mean

__all__ = ["load"]

GROUP = "dynserve.plugins"
_FILE = "plugin.py"
_NOTHING = Defaults()
_LOWER_CASE = (
    "'from dynserve import app' is a module of dynserve; write: from dynserve import App, and then"
    " app = App('my.proto')"
)


def load(target: str, given: Defaults = _NOTHING) -> App:
    """Load the app that ``target`` names.

    ``given`` is what apps get that are made meanwhile; the folder of the plugin's file or module is
    searched for relative sources too.

    Raises:
        TargetError: there is no such target, or it has no app.
        PluginError: importing it raised; the cause is the plugin's own exception.
        DynserveError: what the plugin's own use of dynserve raised while it was imported.
    """
    path = Path(target)
    if path.is_dir():
        if not (path / _FILE).is_file():
            raise TargetError(target, f"the folder has no {_FILE}")
        path /= _FILE
    if path.is_file():
        if path.suffix != ".py":
            raise TargetError(
                target, f"not a plugin by its name; a plugin is a .py file{_hint(path)}"
            )
        given = given._replace(search=(path.resolve().parent, *given.search))
        return _app_of(target, _import_file(target, path.resolve(), given))
    file, _, attribute = target.rpartition(":")
    if Path(file).suffix == ".py" and Path(file).is_file():
        raise TargetError(target, f"the app of a file is the one named 'app'; write {file}")
    if path.suffix == ".py" or path.name != target:
        raise TargetError(target, "no such file or folder")
    if ":" in target:
        name, _, attribute = target.partition(":")
        return _app_of(target, _import_module(target, name, given), attribute)
    return _entry_point(target, given)


def _hint(path: Path) -> str:
    return f" (to serve a schema: --proto {path})" if path.suffix == ".proto" else ""


def _import_file(target: str, path: Path, given: Defaults) -> ModuleType:
    import hashlib  # loads OpenSSL, and only a file needs it

    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"dynserve_plugin_{path.stem}_{digest}"
    # With places to search it is a package, so relative imports find the plugin's neighbours.
    spec = importlib.util.spec_from_file_location(
        name, path, submodule_search_locations=[str(path.parent)]
    )
    if spec is None or spec.loader is None:  # .py files have a loader
        raise TargetError(target, "Python cannot import it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with defaults(given):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        _explain(target, error, path.parent)
        raise
    return module


def _import_module(target: str, name: str, given: Defaults) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(
            target, f"{name!r} is not a module's name; expected package.module:attribute"
        )
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    try:
        with defaults(_beside(name, given)):
            return importlib.import_module(name)
    except BaseException as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise TargetError(target, f"no module named {missing!r}") from None
        _explain(target, error, None)
        raise


def _beside(module: str, given: Defaults) -> Defaults:
    """The defaults for a module: its folder is searched for relative sources too."""
    spec = _spec_of(module, sys.path)
    if spec is None or not spec.has_location or spec.origin is None:
        return given
    return given._replace(search=(Path(spec.origin).resolve().parent, *given.search))


def _spec_of(module: str, path: Sequence[str]) -> ModuleSpec | None:
    """Where a module is; nothing is imported to find out."""
    top, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module in sys.modules that was not imported
        return None
    spec = spec or PathFinder.find_spec(top, path)
    name = top
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec


def _explain(target: str, error: BaseException, folder: Path | None) -> None:
    """Raise PluginError for what a plugin's import raised, unless it speaks for itself."""
    if isinstance(error, DynserveError) or not isinstance(error, (Exception, SystemExit)):
        return
    hint = ""
    if isinstance(error, ModuleNotFoundError) and folder is not None and error.name:
        name = error.name.partition(".")[0]
        if (folder / f"{name}.py").exists() or (folder / name).is_dir():
            hint = f"a neighbour of the plugin is imported relatively: from . import {name}"
    elif isinstance(error, AttributeError) and error.obj is sys.modules[App.__module__]:
        hint = _LOWER_CASE
    summary = f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")
    raise PluginError(target, f"importing it failed: {summary}", hint) from error


def _app_of(target: str, module: ModuleType, attribute: str = "") -> App:
    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if attribute:
        app = getattr(module, attribute, None)
        if app is None:
            near = did_you_mean(attribute, apps)
            raise TargetError(target, f"module {module.__name__!r} has no {attribute!r}{near}")
    elif "app" in apps:
        app = apps["app"]
    elif len(set(apps.values())) == 1:
        (app,) = set(apps.values())
    elif apps:
        raise TargetError(
            target, f"has several apps: {', '.join(apps)}; name the one to serve 'app'"
        )
    elif vars(module).get("app") is sys.modules[App.__module__]:
        raise TargetError(target, f"has no app; {_LOWER_CASE}")
    else:
        raise TargetError(target, "has no app; it needs a line such as: app = App('my.proto')")
    return _checked(target, app)


def _checked(target: str, app: object) -> App:
    if not isinstance(app, App):
        raise TargetError(target, f"is of type {type(app).__name__}, expected a dynserve.App")
    return app


def _entry_point(target: str, given: Defaults) -> App:
    import importlib.metadata  # slow to import, and only needed here

    points = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    if target not in points:
        near = did_you_mean(target, points) or _module_hint(target)
        raise TargetError(
            target, f"no such file or folder, and no plugin of that name is installed{near}"
        )
    try:
        with defaults(_beside(points[target].module, given)):
            return _checked(target, points[target].load())
    except TargetError:
        raise
    except BaseException as error:
        _explain(target, error, None)
        raise


def _module_hint(target: str) -> str:
    is_name = all(part.isidentifier() for part in target.split("."))
    if is_name and _spec_of(target, [os.getcwd()]) is not None:
        return f"; did you mean '{target}:app'?"
    return "; a module is named as package.module:attribute"
