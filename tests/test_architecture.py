"""The layout is the architecture: what the sources themselves say about imports and size."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dynserve"

# From the ground up. A module may import from its own floor and from those below. A name stands for
# the modules in it too; the longest that fits counts.
FLOORS = {
    "dynserve.errors": 0,
    "dynserve.identity": 0,
    "dynserve.method": 0,
    "dynserve.pem": 0,
    "dynserve.request_id": 0,
    "dynserve.settings": 0,
    "dynserve.unix_mode": 0,
    "dynserve.x509": 0,
    "dynserve.schema": 1,
    "dynserve.callables": 2,
    "dynserve.context": 2,
    "dynserve.error_details": 2,
    "dynserve.middleware": 2,
    "dynserve.names": 2,
    "dynserve.observer": 2,
    "dynserve.service": 2,
    "dynserve.status": 2,
    "dynserve.auth": 3,
    "dynserve.client": 3,
    "dynserve.handlers": 3,
    "dynserve.interceptors": 3,
    "dynserve.lifespan": 3,
    "dynserve.observe": 3,
    "dynserve.on_loop": 3,
    "dynserve.routes": 3,
    "dynserve.surrounded": 3,
    "dynserve.unit": 3,
    "dynserve.validation": 3,
    "dynserve.binding": 4,
    "dynserve.policies": 4,
    "dynserve.builtin": 5,
    "dynserve.engine": 5,
    "dynserve.envoy": 5,
    "dynserve.server_tls": 5,
    "dynserve.addresses": 6,
    "dynserve.channel_arguments": 6,
    "dynserve.dump": 6,
    "dynserve.engines": 6,
    "dynserve.equipment": 6,
    "dynserve.main_loop": 6,
    "dynserve.runner": 6,
    "dynserve.server": 6,
    "dynserve.supervisor": 6,
    "dynserve.workers": 6,
    "dynserve.app": 7,
    "dynserve.composition": 7,
    "dynserve.plugins": 8,
    "dynserve.testing": 8,
    "dynserve.aio": 9,
    "dynserve.cli": 9,
    "dynserve.__main__": 10,
    "dynserve.pytest_plugin": 10,
    "dynserve": 10,
}
MAX_FILE, MAX_FUNCTION = 450, 60  # lines


def module_of(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text("utf-8")) for module, path in FILES.items()}


def imported(module: str, node: ast.AST) -> list[str]:
    """The names that one import statement imports, absolute: modules, or what is in them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
        for _ in range(node.level - 1):
            package = package.rpartition(".")[0]
        base = f"{package}.{base}".rstrip(".")
    return [f"{base}.{alias.name}" for alias in node.names]


def all_imports(module: str) -> Iterator[str]:
    """What a module imports, in functions and for type checkers too."""
    for node in ast.walk(TREES[module]):
        yield from imported(module, node)


def start_imports(module: str) -> Iterator[str]:
    """What a module imports when it is imported itself."""
    todo: list[ast.AST] = [TREES[module]]
    while todo:
        node = todo.pop()
        yield from imported(module, node)
        for child in ast.iter_child_nodes(node):
            is_late = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            is_typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if not is_late and not is_typing:
                todo.append(child)


def modules(names: Iterable[str]) -> set[str]:
    """The modules of the package that these names are, or are in."""
    found = set()
    for name in names:
        if name in FILES:
            found.add(name)
        elif name.rpartition(".")[0] in FILES:
            found.add(name.rpartition(".")[0])
    return found


def floor(module: str) -> int:
    """The floor that a module is on."""
    name = module
    while name not in FLOORS:
        name = name.rpartition(".")[0]
    if name == "dynserve" and module != name:
        raise LookupError(f"{module} has no floor: add it to FLOORS")
    return FLOORS[name]


@pytest.mark.parametrize("module", FILES)
def test_no_import_goes_up(module: str) -> None:
    """A module imports nothing of a floor above its own."""
    upward = {other for other in modules(all_imports(module)) if floor(other) > floor(module)}
    assert upward == set()


@pytest.mark.parametrize("module", sorted(FILES.keys() - {"dynserve"}))
def test_nothing_imports_the_root(module: str) -> None:
    """The package's own modules import each other, never the names that are made for users."""
    names = [name for name in all_imports(module) if name.startswith("dynserve")]
    assert [name for name in names if modules([name]) in (set(), {"dynserve"})] == []


def test_imports_have_no_cycle() -> None:
    """Modules can be imported one after the other, each after all that it imports."""
    graph = {module: modules(start_imports(module)) - {module} for module in FILES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")
    assert set(order) == set(FILES)


@pytest.mark.parametrize("module", [module for module in FILES if ".schema" in module])
def test_schema_knows_nothing_of_grpc(module: str) -> None:
    """Descriptors and messages stand on protobuf alone; only the compiler's package is gRPC's."""
    tops = {name.partition(".")[0] for name in all_imports(module)}
    assert {top for top in tops if top.startswith("grpc")} <= {"grpc_tools"}


@pytest.mark.parametrize(
    "module", [module for module in FILES if f"{module}.".startswith("dynserve.engine.")]
)
def test_engines_know_nothing_of_dynserve(module: str) -> None:
    """An engine runs plain grpcio handlers: it imports nothing of the package but engines."""
    others = {
        name
        for name in modules(all_imports(module))
        if not f"{name}.".startswith("dynserve.engine.")
    }
    assert others == set()


@pytest.mark.parametrize("module", FILES)
def test_files_and_functions_are_short(module: str) -> None:
    """A file has at most 450 lines, and a function at most 60."""
    lines = FILES[module].read_text("utf-8").count("\n")
    long = {
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(TREES[module])
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION
    }
    assert (lines <= MAX_FILE, long) == (True, set())


@pytest.mark.parametrize("module", FILES)
def test_nothing_is_checked_with_assert(module: str) -> None:
    """What a user gives is checked by code that ``python -O`` keeps."""
    asserts = [n.lineno for n in ast.walk(TREES[module]) if isinstance(n, ast.Assert)]
    assert asserts == []
