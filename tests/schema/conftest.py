"""A folder of .proto files that is the working directory of a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

Tree: TypeAlias = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """``tree({"a/b.proto": "…"})`` writes files and makes their folder the working directory."""

    def write(files: Mapping[str, str]) -> Path:
        folder = tmp_path / "tree"
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        return folder

    return write
