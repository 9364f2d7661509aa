"""Messages cut apart as they come in."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynserve.cli.stream import DataError, chunks_of, json_values, text_values

SPACE = " \t\n\r"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        (" \n\t\r ", []),
        ('{"a": 1}', ['{"a": 1}']),
        ('{"a": 1}{"a": 2} {"a": 3}\n', ['{"a": 1}', '{"a": 2}', '{"a": 3}']),
        ('{"a": "}{"}[1]"x"true 1', ['{"a": "}{"}', "[1]", '"x"', "true", "1"]),
        ('1{}2[]3"a"4', ["1", "{}", "2", "[]", "3", '"a"', "4"]),
        (r'"\\""\"" "\u0022"', [r'"\\"', r'"\""', r'"\u0022"']),
        ('{\n  "a": [\n    {}\n  ]\n}', ['{\n  "a": [\n    {}\n  ]\n}']),
        ('{"a":', ['{"a":']),
        ('{"a": "\n', ['{"a": "\n']),
        ("{}}", ["{}", "}"]),
        ("]1", ["]", "1"]),
        ("{]", ["{]"]),
        ("1,2", ["1,2"]),
        ("\u00a01\x1e2", ["\u00a01\x1e2"]),  # white space elsewhere, but not in JSON
        ("\\", ["\\"]),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_where_values_end(text: str, values: list[str], size: int) -> None:
    """By brackets, quotes and white space, wherever the text is cut into chunks."""
    assert list(json_values(pieces(text, size))) == values


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def test_a_value_comes_as_soon_as_it_is_whole() -> None:
    """Nothing is waited for behind a bracket or a quote; a number ends with what follows."""
    given: list[str] = []

    def chunks() -> Iterator[str]:
        for chunk in ('{"a"', ": 1}", " 1", "2", "\n", '"', 'x"'):
            given.append(chunk)
            yield chunk

    values = json_values(chunks())
    assert [(next(values), len(given)) for _ in range(3)] == [
        ('{"a": 1}', 2),
        ("12", 5),
        ('"x"', 7),
    ]


json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.data())
def test_any_values_with_any_separators_in_any_chunks(data: st.DataObject) -> None:
    """They come out as they went in, and each as it was written."""
    values = data.draw(st.lists(json_text, max_size=6))
    indents = st.sampled_from([None, 0, 2])
    texts = [json.dumps(v, ensure_ascii=False, indent=data.draw(indents)) for v in values]
    text = data.draw(st.text(SPACE, max_size=2))
    for one, other in zip(texts, [*texts[1:], ""], strict=False):
        is_clear = one[-1] in '"}]' or other[:1] in {'"', "{", "["}
        text += one + data.draw(st.text(SPACE, min_size=0 if is_clear else 1, max_size=3))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert list(json_values(chunks)) == texts


@settings(deadline=None)
@given(st.text(st.sampled_from('{}[]"\\ \n1a,:\x1e\u2028'), max_size=40), st.integers(1, 5))
def test_no_text_is_lost(text: str, size: int) -> None:
    """Whatever it is: only the white space between values is left out, and chunks do not matter."""
    values = list(json_values(pieces(text, size)))
    assert values == list(json_values([text]))
    without = str.maketrans("", "", SPACE)
    assert "".join(values).translate(without) == text.translate(without)
    assert all(value == value.lstrip(SPACE) != "" for value in values)


def test_a_long_message_in_small_chunks() -> None:
    """The time is in proportion to the length: 10 MB take seconds, not hours."""
    text = json.dumps({"text": "x" * 5_000_000, "list": [1] * 1_500_000})
    started = time.process_time()
    assert list(json_values(pieces(text, 512))) == [text]
    assert list(text_values(pieces(text, 512))) == [text]
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        (" \n", []),
        ("a: 1", ["a: 1"]),
        ("a: 1\x1ea: 2", ["a: 1", "a: 2"]),
        ("a: 1\x1e", ["a: 1", ""]),
        ("\x1e\n", ["", "\n"]),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_messages_in_the_text_format(text: str, values: list[str], size: int) -> None:
    """A record separator stands between two, of which one may be empty."""
    assert list(text_values(pieces(text, size))) == values


def test_chunks_of_a_file(tmp_path: Path) -> None:
    """A character may be cut by a chunk's end; a mark at the beginning says nothing."""
    text = "é" * 100_000
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf" + b"a" + text.encode())
    chunks = list(chunks_of(f"@{tmp_path}/a"))
    assert "".join(chunks) == "a" + text
    assert len(chunks) > 2


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_files_are_closed(tmp_path: Path) -> None:
    """After the end, and when whoever reads stops early; standard input is not closed."""
    (tmp_path / "a").write_text("{}{}")
    assert list(json_values(chunks_of(f"@{tmp_path}/a"))) == ["{}", "{}"]
    values = json_values(chunks_of(f"@{tmp_path}/a"))
    assert next(values) == "{}"
    del values
    chunks_of(f"@{tmp_path}/a")  # never read
    gc.collect()
    opened = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of another test's, which is closed just now
            opened.append(os.readlink(f"/proc/self/fd/{name}"))
    assert [path for path in opened if path.startswith(str(tmp_path))] == []
    assert any(opened)


def test_a_file_that_is_lost_on_the_way(tmp_path: Path) -> None:
    """One that was there when the call began, and is not when it is read."""
    path = tmp_path / "a"
    path.touch()
    chunks = chunks_of(f"@{path}")
    path.unlink()
    with pytest.raises(DataError) as caught:
        list(chunks)
    assert caught.value.message == f"--data @{path}: No such file or directory."
