""".proto files → an index of what they compile to, from the cache wherever that can be.

The cache has two sorts of entries. A compiled set with the index of it goes by the content of all
that it was made of. A note goes by the paths that were asked for, and says which set that was and
what on disk made it so: where that is unchanged no source is even read.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynserve.errors import Diagnostic

from .cache import Cache, default_folder, pack, unpack
from .evidence import Evidence
from .index import Index
from .sources import ProtoSource
from .toolchain import Limits, key_of, toolchain

if TYPE_CHECKING:
    from .imports import SourceTree

__all__ = ["add_compiled"]

_NOTE = ".note"
_PARTS, _LENGTH = 3, 8  # of an entry; the bytes that each part's length takes, in front of all


def add_compiled(
    index: Index,
    label: str,
    protos: Sequence[ProtoSource],
    include: Sequence[str],
    use_cache: bool,
    limits: Limits,
) -> tuple[Sequence[str], list[Diagnostic]]:
    """Add what the files and their imports compile to; ``label`` is for errors.

    Returns:
        The names of the files that were asked for, and the compiler's warnings if it ran.

    Raises:
        SourceError, CompileError, CompilerError, DescriptorError: as ``Schema.load`` says.
    """
    folder = default_folder() if use_cache else None
    if folder is None:
        tree = _resolve(protos, include, Evidence())
        data, warnings = _compile(tree, limits)
        index.add_set(label, data)
        return tree.wanted, warnings
    wanted, entry, warnings = _cached(folder, label, protos, include, limits)
    _add(index, label, entry)
    return wanted, warnings


def _cached(
    folder: str,
    label: str,
    protos: Sequence[ProtoSource],
    include: Sequence[str],
    limits: Limits,
) -> tuple[Sequence[str], memoryview, list[Diagnostic]]:
    """The names, the entry of the set, and the compiler's warnings if it ran."""
    cache, notes = Cache(folder), Cache(folder, _NOTE)
    asked = Cache.key(_asked(protos, include))
    noted = notes.load(asked)
    if noted is not None:
        wanted, key, facts = unpack(noted)
        entry = cache.load(key) if Evidence.holds(facts) else None
        if entry is not None:
            return wanted, entry, []
    evidence = Evidence()
    tree = _resolve(protos, include, evidence)
    key = Cache.key(key_of(tree))
    warnings: list[Diagnostic] = []
    entry = cache.load(key)
    if entry is None:
        data, warnings = _compile(tree, limits)
        entry = _entry(label, data)
        cache.store(key, entry)
        entry = cache.load(key) or entry  # mapped, it takes no memory
    facts = evidence.facts()
    if facts is not None and facts[0]:
        notes.store(asked, pack((tree.wanted, key, facts)))
    return tree.wanted, entry, warnings


def _asked(protos: Sequence[ProtoSource], include: Sequence[str]) -> list[bytes]:
    """All that decides the outcome beside what is on disk."""
    words = [*toolchain(), *_resolver(), *sys.path, "", _here(), *include, ""]
    for proto in protos:
        words += [proto.path or "", proto.root or "", proto.label]
    parts = [word.encode(errors="surrogatepass") for word in words]
    return [*parts, *(proto.text or b"" for proto in protos)]


def _resolver() -> tuple[str, ...]:
    """Which version of what resolves it is: another may look elsewhere, or forbid what it finds."""
    folder = os.path.dirname(__file__)
    names = ("compiled.py", "evidence.py", "imports.py")
    try:
        found = [os.stat(os.path.join(folder, name)) for name in names]
    except OSError:  # not from files
        return ()
    return tuple(f"{status.st_ctime_ns} {status.st_size}" for status in found)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed, and whatever is looked for there is not found
        return ""


def _resolve(
    protos: Sequence[ProtoSource], include: Sequence[str], evidence: Evidence
) -> SourceTree:
    from .imports import resolve  # nor is there anything to resolve where nothing changed

    return resolve(protos, include, evidence)


def _compile(tree: SourceTree, limits: Limits) -> tuple[bytes, list[Diagnostic]]:
    from .compiler import compile_tree  # what it needs, a start from the cache does not

    return compile_tree(tree, limits)


def _entry(label: str, data: bytes) -> memoryview:
    """A compiled set and its index."""
    index = Index()
    index.add_set(label, data)
    parts = (*index.snapshot(data), data)
    lengths = (len(part).to_bytes(_LENGTH, "big") for part in parts)
    return memoryview(b"".join((*lengths, *parts)))


def _add(index: Index, label: str, entry: memoryview) -> None:
    heads = (entry[at : at + _LENGTH] for at in range(0, _PARTS * _LENGTH, _LENGTH))
    lengths = (int.from_bytes(head, "big") for head in heads)
    ends = itertools.accumulate(lengths, initial=_PARTS * _LENGTH)
    names, symbols, data = (entry[begin:end] for begin, end in itertools.pairwise(ends))
    if index.files:
        index.add_set(label, data)
    else:
        index.restore(names, symbols, data)
