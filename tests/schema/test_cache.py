"""dynserve.schema.cache: compiled sets by content, shared between processes."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynserve import Schema
from dynserve.schema import cache as cache_module
from dynserve.schema.cache import Cache, default_folder

from .conftest import Tree

P3 = 'syntax = "proto3";\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own; it is made on first use."""
    folder = tmp_path / "deep" / "cache"
    monkeypatch.setenv("DYNSERVE_CACHE_DIR", str(folder))
    return folder


def refuse_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*args: object, **kwargs: object) -> None:
        raise AssertionError("a compiler was started")

    monkeypatch.setattr(subprocess, "run", run)


def entries(folder: Path) -> list[Path]:
    """What the cache holds, temporary files included."""
    return sorted(folder.iterdir())


def test_a_second_start_compiles_nothing(
    tree: Tree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compiled once is loaded without a compiler, from wherever the same files lie."""
    where = tree({"a.proto": P3 + 'import "b.proto";', "b.proto": P3 + "message B {}"})
    Schema.load("a.proto")
    refuse_to_compile(monkeypatch)
    schema = Schema.load("a.proto")
    assert schema.message("B").DESCRIPTOR.full_name == "B"
    assert schema.warnings == ()
    moved = where.rename(where.with_name("moved"))
    assert Schema.load(moved / "a.proto").declared_files == ("a.proto",)


@pytest.mark.parametrize(
    "change",
    ["the file", "an import", "which files", "the compiler"],
)
def test_what_changes_the_outcome_changes_the_entry(
    tree: Tree, folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A change of a file, of what it imports, of what is asked for or of protoc compiles again."""
    tree({"a.proto": P3 + 'import "b.proto";', "b.proto": P3 + "message B {}"})
    Schema.load("a.proto")
    if change == "the file":
        Path("a.proto").write_text(P3 + 'import "b.proto"; message A {}')
    elif change == "an import":
        Path("b.proto").write_text(P3 + "message C {}")
    elif change == "the compiler":
        monkeypatch.setattr("grpc_tools.grpc_version.VERSION", "0.0.0")
    sources = ["a.proto", "b.proto"] if change == "which files" else ["a.proto"]
    with monkeypatch.context() as patch:
        refuse_to_compile(patch)
        with pytest.raises(AssertionError, match="a compiler was started"):
            Schema.load(*sources)
    Schema.load(*sources)
    assert len(entries(folder)) == 2


def test_without_the_cache(folder: Path) -> None:
    """With cache=False nothing is written."""
    Schema.load(P3, cache=False)
    assert not folder.exists()


def test_only_the_user_can_read_the_cache(folder: Path) -> None:
    """The folder that is made belongs to its user alone."""
    Schema.load(P3)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"garbage",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data + b"\0",
        lambda data: b"\xff" + data[1:],
    ],
)
def test_a_damaged_entry_is_replaced(folder: Path, damage: object) -> None:
    """An entry that is garbage, empty or cut off is compiled anew, and then it is whole again."""
    Schema.load(P3 + "message M {}")
    [path] = entries(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))  # type: ignore[operator]
    assert Schema.load(P3 + "message M {}").message("M").DESCRIPTOR.full_name == "M"
    assert entries(folder) == [path]
    assert path.read_bytes() == whole


def test_the_user_is_told_of_damage(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged entry is a warning in the log with its path."""
    cache = Cache(folder)
    cache.store("k", b"data")
    path = folder / "k.binpb"
    path.write_bytes(b"garbage of some length or other")
    assert cache.load("k") is None
    assert caplog.messages == [f"cache entry {path} is damaged and will be replaced"]


def test_a_folder_that_cannot_be_used(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a file in the place of the cache everything works, and the log tells why it is slow."""
    folder.parent.write_text("a file")
    assert Schema.load(P3 + "message M {}").message("M").DESCRIPTOR.full_name == "M"
    key = caplog.messages[0].split("/")[-1].split(".")[0]
    assert caplog.messages == [
        f"cache entry {folder}/{key}.note cannot be read: [Errno 20] Not a directory:"
        f" '{folder}/{key}.note'",
        f"cache folder {folder} cannot be written: [Errno 20] Not a directory: '{folder}'",
    ]


def test_a_folder_that_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a full disk everything works, and no half of an entry stays behind."""

    def replace(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", replace)
    assert Schema.load(P3 + "message M {}").message("M").DESCRIPTOR.full_name == "M"
    assert caplog.messages == [
        f"cache folder {folder} cannot be written: [Errno 28] No space left on device"
    ]
    assert entries(folder) == []


def test_an_entry_that_is_a_folder(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Something else in an entry's place costs a compilation each time, and nothing more."""
    (folder / "k.binpb").mkdir(parents=True)
    cache = Cache(folder)
    assert cache.load("k") is None
    cache.store("k", b"data")
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert [path.name for path in entries(folder)] == ["k.binpb"]


def test_an_entry_that_is_a_pipe(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pipe in an entry's place blocks nobody, and is replaced."""
    cache = Cache(folder)
    cache.store("k", b"data")
    path = folder / "k.binpb"
    path.unlink()
    os.mkfifo(path, 0o600)
    assert cache.load("k") is None
    assert [text.split(": ")[0] for text in caplog.messages] == [
        f"cache entry {path} cannot be read"
    ]
    cache.store("k", b"data")
    assert bytes(cache.load("k") or b"") == b"data"


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_an_entry_that_others_can_write(
    folder: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    """What another user may have put there is not served; it is compiled and replaced."""
    cache = Cache(folder)
    cache.store("k", b"data")
    path = folder / "k.binpb"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(mode)
    assert cache.load("k") is None
    assert caplog.messages == [f"cache entry {path} is not used: others may have written it"]
    cache.store("k", b"data")
    assert bytes(cache.load("k") or b"") == b"data"


def test_an_entry_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry is used if it is this user's own or root's, and where there are no such users."""
    cache = Cache(folder)
    cache.store("k", b"data")
    own = (folder / "k.binpb").stat().st_uid
    real = os.fstat

    def owned_by(user: int) -> None:
        def fstat(descriptor: int) -> os.stat_result:
            return os.stat_result((*real(descriptor)[:4], user, *real(descriptor)[5:]))

        monkeypatch.setattr(os, "fstat", fstat)

    for user, found in ((own, b"data"), (0, b"data"), (own + 4711, None)):
        owned_by(user)
        data = cache.load("k")
        assert (data and bytes(data)) == found
    monkeypatch.delattr(os, "geteuid")
    assert bytes(cache.load("k") or b"") == b"data"


def test_an_entry_in_the_place_of_another(folder: Path) -> None:
    """A file that is whole, but of another key, is not taken for the one that is wanted."""
    cache = Cache(folder)
    cache.store("k", b"data")
    (folder / "k.binpb").rename(folder / "l.binpb")
    assert cache.load("l") is None


def test_what_killed_processes_left_is_removed(folder: Path) -> None:
    """A file that was being written a day ago goes when something is stored; a new one stays."""
    folder.mkdir(parents=True)
    for name, age in ((".new-old", 25), (".new-young", 23), ("other", 1000)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age * 3600,) * 2)
    Cache(folder).store("k", b"data")
    assert [path.name for path in entries(folder)] == [".new-young", "k.binpb", "other"]


def test_the_size_of_the_cache_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large entries go sooner, and the one just stored never."""
    monkeypatch.setattr(cache_module, "_MAX_BYTES", 100)
    cache = Cache(folder)
    for age, key in enumerate(("a", "b", "c")):
        cache.store(key, b"x" * 20)
        os.utime(folder / f"{key}.binpb", (1000 - age,) * 2)
    assert [path.stem for path in entries(folder)] == ["a", "c"]
    cache.store("large", b"x" * 200)
    assert [path.stem for path in entries(folder)] == ["large"]


def test_two_processes_that_prune_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An entry that another process removes meanwhile is no reason to warn."""
    cache = Cache(folder)
    cache.store("a", b"x")
    scandir = os.scandir

    @contextlib.contextmanager
    def scan(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as found:
            listed = list(found)
        (folder / "a.binpb").unlink()
        yield listed

    monkeypatch.setattr(os, "scandir", scan)
    cache.store("b", b"x")
    monkeypatch.undo()
    assert [path.stem for path in entries(folder)] == ["b"]
    assert caplog.messages == []


def test_two_processes_compile_the_same_at_once(tree: Tree, folder: Path) -> None:
    """Processes that compile one schema at the same time all get it, and leave one entry."""
    tree({"a.proto": P3 + "message A { int32 n = 1; }"})
    code = (
        "import sys; from dynserve import Schema; print('ready', flush=True); sys.stdin.read(1);"
        "print(Schema.load('a.proto').message('A')(n=7).SerializeToString().hex())"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("g")
        child.stdin.flush()
    assert [child.communicate(timeout=60) for child in children] == [("0807\n", "")] * 4
    [entry] = entries(folder)
    assert Cache(folder).load(entry.stem) is not None


def test_the_entries_used_last_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache does not grow without end: what was not used for the longest time goes."""
    monkeypatch.setattr(cache_module, "_MAX_ENTRIES", 2)
    cache = Cache(folder)
    for age, key in enumerate(("old", "older")):
        cache.store(key, b"x")
        os.utime(folder / f"{key}.binpb", (1000 - age, 1000 - age))
    assert cache.load("older") is not None  # a use makes it young
    cache.store("new", b"x")
    assert [path.stem for path in entries(folder)] == ["new", "older"]


@pytest.mark.parametrize("size", [1, cache_module._SMALL + 1])
def test_a_set_in_use_survives_its_entry(folder: Path, size: int) -> None:
    """What was loaded, read or mapped, stays as it was when the entry is replaced or goes."""
    cache = Cache(folder)
    cache.store("k", b"one" * size)
    data = cache.load("k")
    cache.store("k", b"two" * size)
    (folder / "k.binpb").unlink()
    assert data is not None
    assert bytes(data) == b"one" * size
    assert isinstance(data.obj, bytes) == (size == 1)


@pytest.mark.parametrize("has_blake2", [True, False])
def test_keys_tell_the_parts_apart(monkeypatch: pytest.MonkeyPatch, has_blake2: bool) -> None:
    """No two sequences of parts have one key, wherever they are cut; nor where Python follows FIPS
    and has no BLAKE2."""
    if not has_blake2:
        monkeypatch.setitem(sys.modules, "_blake2", None)
    keys = {Cache.key(parts) for parts in ([b"ab"], [b"a", b"b"], [b"", b"ab"], [b"ab", b""], [])}
    assert len(keys) == 5
    assert {len(key) for key in keys} == {64}


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"DYNSERVE_CACHE_DIR": "/c"}, "/c"),
        ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/dynserve"),
        ("linux", {}, "/home/u/.cache/dynserve"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/u/.cache/dynserve"),
        ("linux", {"DYNSERVE_CACHE_DIR": "", "XDG_CACHE_HOME": ""}, "/home/u/.cache/dynserve"),
        ("darwin", {}, "/home/u/Library/Caches/dynserve"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/dynserve"),
        ("win32", {}, "/home/u/AppData/Local/dynserve"),
    ],
)
def test_the_default_folder(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    """The cache is where the system keeps a user's caches, or where the variable says."""
    for name in ("DYNSERVE_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/u", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert default_folder() == expected


def test_a_user_without_a_home(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a container whose user is nobody, nothing is cached and everything works."""

    monkeypatch.delenv("DYNSERVE_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for such a user
    assert Schema.load(P3 + "message M {}").message("M").DESCRIPTOR.full_name == "M"
    assert caplog.messages == ["nothing is cached: Could not determine home directory."]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("hard", [False, True])
def test_an_entry_that_is_a_link(
    folder: Path, tmp_path: Path, hard: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else may have made it, to a file of this user that says what they want."""
    cache = Cache(folder)
    cache.store("k", b"data")
    path, other = folder / "k.binpb", tmp_path / "uploaded"
    path.rename(other)
    if hard:
        path.hardlink_to(other)
    else:
        path.symlink_to(other)
    assert cache.load("k") is None
    assert len(caplog.messages) == 1
    cache.store("k", b"data")
    assert bytes(cache.load("k") or b"") == b"data"
    assert other.exists()
