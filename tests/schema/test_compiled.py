"""dynserve.schema.compiled: what was compiled before, found again without reading a source."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynserve import CompileError, DescriptorError, Schema, SourceError
from dynserve.schema import cache, compiled, evidence, imports
from dynserve.schema.index import Index

from .conftest import Tree

P3 = 'syntax = "proto3";\n'
FILES = {
    "sub/a.proto": P3 + 'package a; import "b.proto"; message A { b.B b = 1; }',
    "b.proto": P3 + 'package b; import "google/protobuf/any.proto"; message B {} service S {}',
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, for which no file is too new."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DYNSERVE_CACHE_DIR", str(folder))
    monkeypatch.setattr(evidence, "_RECENT", 0)
    return folder


@pytest.fixture
def no_source(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on nothing may be read or compiled."""

    def refuse(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("a source was read, or a compiler started")

    def from_here_on() -> None:
        monkeypatch.setattr(imports, "read", refuse)
        monkeypatch.setattr(subprocess, "run", refuse)

    return from_here_on


def essence(schema: Schema) -> list[object]:
    """All that a schema is."""
    index = schema.index
    files = [
        (name, index.raw(name), index.dependencies(name), index.option_dependencies(name))
        for name in index.files
    ]
    symbols = {symbol: index.file_of(symbol) for symbol in index.symbols()}
    extendees = {name: index.extensions(name) for name in index._extensions}
    return [schema.declared_files, schema.label, files, symbols, extendees, index.services]


def test_nothing_is_read_where_nothing_changed(tree: Tree, no_source: Callable[[], None]) -> None:
    """The schema is the same as when it was compiled, in all its parts."""
    tree(FILES)
    first = Schema.load("sub", "b.proto")
    no_source()
    again = Schema.load("sub", "b.proto")
    assert essence(again) == essence(first)
    assert again.service("b.S").name == "b.S"
    assert again.message("a.A").DESCRIPTOR.full_name == "a.A"


def test_an_index_that_was_stored_is_the_same(no_source: Callable[[], None]) -> None:
    """Of everything that is installed: files, imports, symbols, extensions, services."""
    sources = ("package:googleapis-common-protos", "package:grpc_tools/_proto")
    first = Schema.load(*sources)
    no_source()
    assert essence(Schema.load(*sources)) == essence(first)
    indexed = Index()
    indexed.add_set("set", _set_of(first))
    assert essence(first)[2:] == [
        *essence(Schema(indexed, ()))[2:],
    ]
    assert first.index.extensions("google.protobuf.MethodOptions")


def _set_of(schema: Schema) -> bytes:
    from dynserve.schema.descriptors import join

    return join([schema.index.raw(name) for name in schema.index.files])


def _same_size_and_time(path: Path) -> None:
    """Change a file so that only the time of the change itself tells."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_text(path.read_text().replace("message B", "message C").replace("b.B", "b.C"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _both_kept(root: Path) -> None:
    for name in ("b.proto", "sub/a.proto"):
        _same_size_and_time(root / name)


def _replaced(root: Path) -> None:
    (root / "new").write_text(FILES["b.proto"] + "message New {}")
    (root / "new").replace(root / "b.proto")


NEARER = P3 + "package b; message B { int32 nearer = 1; }"
CHANGES: dict[str, Callable[[Path], object]] = {
    "a file": lambda root: (root / "sub/a.proto").write_text(P3 + "message Other {}"),
    "an import": lambda root: (root / "b.proto").write_text(P3 + "package b; message B {} // more"),
    "time and size kept": _both_kept,
    "one that comes first": lambda root: (root / "sub/b.proto").write_text(NEARER),
    "a file is another": _replaced,
}


@pytest.mark.parametrize("source", ["sub", "sub/a.proto"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(tree: Tree, change: str, source: str) -> None:
    """Whatever changes the outcome, the outcome is that of a load without a cache."""
    root = tree(FILES)
    before = essence(Schema.load(source))
    CHANGES[change](root)
    after = essence(Schema.load(source))
    assert after != before
    assert after == essence(Schema.load(source, cache=False))


def test_one_more_in_a_folder_is_seen(tree: Tree) -> None:
    """A folder is what is in it."""
    root = tree(FILES)
    Schema.load("sub")
    (root / "sub/c.proto").write_text(P3)
    assert Schema.load("sub").declared_files == ("sub/a.proto", "c.proto")


def test_a_file_that_is_gone_is_missed(tree: Tree) -> None:
    """What was there is no reason to serve what is not."""
    root = tree(FILES)
    Schema.load("sub")
    (root / "b.proto").unlink()
    with pytest.raises(Exception, match=r"b\.proto"):
        Schema.load("sub")
    shutil.rmtree(root / "sub")
    with pytest.raises(SourceError):
        Schema.load("sub")


def test_a_repository_that_appears_changes_where_is_searched(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Roots are inferred up to the repository; with one in between the import is out of reach."""
    root = tree(FILES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    Schema.load(root / "sub")
    (root / "sub/.git").mkdir()
    with pytest.raises(Exception, match=r"b\.proto"):
        Schema.load(root / "sub")


def test_what_is_asked_for_counts(tree: Tree) -> None:
    """Other roots, another folder to work in, other texts: each is looked at anew."""
    root = tree({"one/x.proto": P3 + "message One {}", "two/x.proto": P3 + "message Two {}"})
    text = P3 + 'import "x.proto"; message M {{ {0} m = 1; }}'
    for name, folder in (("One", "one"), ("Two", "two")):
        for _ in range(2):
            schema = Schema.load(text.format(name), include=[root / folder])
            assert schema.has_message(name)
    Schema.load("one/x.proto")
    os.chdir("two")
    with pytest.raises(SourceError):
        Schema.load("one/x.proto")


def test_files_too_new_are_read_again(
    tree: Tree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of this moment may change once more and keep its time: nothing is noted of it."""
    monkeypatch.undo()
    monkeypatch.setenv("DYNSERVE_CACHE_DIR", str(folder))
    monkeypatch.chdir(tree(FILES))
    Schema.load("sub")
    assert len(list(folder.iterdir())) == 1


def test_an_entry_that_is_gone_is_compiled_again(tree: Tree, folder: Path) -> None:
    """The note of what is unchanged is of no use without the set; nor is a set by itself needed."""
    tree(FILES)
    first = essence(Schema.load("sub"))
    for path in sorted(folder.iterdir()):
        path.unlink()
        assert essence(Schema.load("sub")) == first
    assert len(list(folder.iterdir())) == 2


def test_a_set_beside_a_stored_one_may_conflict(tree: Tree, no_source: Callable[[], None]) -> None:
    """The names of the stored one are known then, although nobody had asked for them."""
    tree(FILES)
    Schema.load("sub")
    other = Schema.load(P3 + "package b; message B {}", cache=False)
    no_source()
    with pytest.raises(DescriptorError) as caught:
        Schema.load("sub", _set_of(other))
    assert str(caught.value) == (
        "descriptor set: 'b.B' is defined in 'b.proto' and in 'inline_1.proto'"
    )


def test_a_tree_that_is_swapped_while_it_is_compiled(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is noted is what was read, not what is there when it is noted."""
    root = tree({"v1/x.proto": P3 + "message One {}", "v2/x.proto": P3 + "message Two {}"})
    current = root / "current"
    current.symlink_to("v1")
    run = subprocess.run

    def swap(*args: Any, **options: Any) -> Any:
        current.unlink()
        current.symlink_to("v2")
        return run(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", swap)
        assert Schema.load("current/x.proto").has_message("One")
    for _ in range(2):
        assert Schema.load("current/x.proto").has_message("Two")


def test_something_else_that_becomes_a_file_is_seen(tree: Tree) -> None:
    """A folder of an import's name is passed over; a file in its place is the import."""
    root = tree(FILES)
    (root / "sub/b.proto").mkdir()
    before = essence(Schema.load("sub/a.proto"))
    (root / "sub/b.proto").rmdir()
    (root / "sub/b.proto").write_text(NEARER)
    after = essence(Schema.load("sub/a.proto"))
    assert after != before
    assert after == essence(Schema.load("sub/a.proto", cache=False))


def test_a_root_that_is_no_folder_any_more_is_seen(tree: Tree) -> None:
    """Although nothing was taken from it."""
    root = tree({**FILES, "inc/unused.proto": P3})
    Schema.load("b.proto", include=["inc", "."])
    shutil.rmtree(root / "inc")
    (root / "inc").write_text("")
    with pytest.raises(SourceError, match="an include root must be a folder"):
        Schema.load("b.proto", include=["inc", "."])


def test_other_rules_of_where_to_look_look_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note of another version of the resolver, which may be stricter, does not count."""
    tree(FILES)
    Schema.load("sub/a.proto")
    monkeypatch.setattr(imports._Resolver, "_inferred", lambda self, folder: ())
    assert Schema.load("sub/a.proto").has_message("b.B")  # the file of the resolver is the same
    monkeypatch.setattr(compiled, "_resolver", lambda: ("another",))
    with pytest.raises(CompileError):
        Schema.load("sub/a.proto")


def test_where_there_is_no_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not need one loads."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert Schema.load(P3 + "message M {}").has_message("M")


def test_notes_do_not_push_sets_out(
    tree: Tree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is a note for each folder that a tree is loaded from; notes have their own limit."""
    monkeypatch.setattr(cache, "_MAX_ENTRIES", 3)
    root = tree({**FILES, **{f"d{number}/x": "" for number in range(6)}})
    for number in range(6):
        monkeypatch.chdir(root / f"d{number}")
        Schema.load(root / "b.proto", include=[root])
    suffixes = sorted(path.suffix for path in folder.iterdir())
    assert suffixes == [".binpb", ".note", ".note", ".note"]


def test_what_says_too_little_is_no_evidence(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this moment, or a whole second, as all times in an image that is made to be the same
    every time; and what was not the same at the second look."""
    path = str(tree(FILES) / "b.proto")
    now = time.time_ns()

    def facts(changed: int, twice: int | None = None) -> object:
        answers = iter([(changed, changed, 1, 2, 3, 0o100644), (twice, twice, 1, 2, 3, 0o100644)])
        monkeypatch.setattr(evidence, "_seen", lambda _: next(answers))
        seen = evidence.Evidence()
        assert seen.is_file(path)
        if twice is not None:
            seen.is_file(path)
        return seen.facts()

    monkeypatch.setattr(evidence, "_RECENT", 2_000_000_000)
    long_ago = now - 10_000_000_000
    whole = long_ago // 1_000_000_000 * 1_000_000_000
    assert facts(now) is None
    assert facts(now - 1_000_000_000) is None
    assert facts(whole) is None
    assert facts(whole + 1) is not None
    assert facts(whole + 1, whole + 1) is not None
    assert facts(whole + 1, whole + 2) is None


def test_answers_that_are_not_the_same_any_more(tree: Tree) -> None:
    """Each of the questions is asked again."""
    root = tree(FILES)
    seen = evidence.Evidence()
    assert not seen.is_shared(str(root / "sub"))
    assert not seen.is_file(str(root / "nothing"))
    assert not seen.is_file("\0")
    facts = seen.facts()
    assert facts is not None
    assert evidence.Evidence.holds(facts)
    (root / "sub").chmod(0o1777)
    assert not evidence.Evidence.holds(facts)
    shutil.rmtree(root / "sub")
    assert not evidence.Evidence.holds(facts)
