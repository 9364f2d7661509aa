"""The documents: every snippet in them is run, and what they show is what comes out.

A page is read from top to bottom in an empty folder (beside ``examples`` and ``protos``):
  * a block whose first line is a comment with a file name (``# hello.py``) becomes that file;
  * other ``python`` blocks are run, all of a page in one namespace;
  * ``sh`` blocks are run command by command; a server that one starts serves until the page ends
    or starts another, on a port of its own, which is put where the page says the usual one, in
    files and Python too; ``echo … |`` is what a command reads, ``echo $?`` its exit code;
  * what a verb prints is what a terminal without colours shows;
  * a ``text`` block is what the block before it prints; ``…`` stands for anything on a line, and
    on a line of its own for any lines.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dynserve import plugins
from dynserve.cli.main import invoke
from dynserve.cli.run import run
from dynserve.settings import GROUPS, SETTINGS, Setting

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [
    *sorted(ROOT.glob("*.md")),
    *PAGES[1:],
    *sorted(ROOT.glob("examples/*/README.md")),
    ROOT / "deploy" / "README.md",
]
SETTINGS_PAGE = ROOT / "docs" / "settings.md"

SERVE = "python -m pip install . && python -m dynserve run examples/route_guide"
TEST = "python -m pip install -e '.[test]' && python -m pytest"

# Commands, or halves of one, that are left out.
NOT_RUN = {
    "python -m pip install": "needs the network; CI runs it",
    "python -m pytest": "that is this run",
    "go install": "needs the network; CI runs it",
}
TOOLS = ("grpcurl", "buf")  # nothing depends on what they do

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"(?:#|//) ([\w./-]+\.\w+)\n")
_LISTENING = re.compile(r"^Listening on \S*?:?(\d+)$", re.MULTILINE)
_PORT = re.compile(r":(\d{4,5})$")


class Block(NamedTuple):
    language: str
    text: str

    @property
    def file(self) -> str | None:
        name = _FILE_NAME.match(self.text)
        return name[1] if name else None


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    return [Block(*match.groups()) for match in _BLOCK.finditer(page.read_text("utf-8"))]


def matches(shown: str, printed: str) -> bool:
    pattern = "".join(
        "(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"[ ]*\n"
        for line in shown.strip().splitlines()
    )
    return re.fullmatch(pattern, printed.strip() + "\n") is not None


class Runner:
    """Runs the blocks of one page; the working directory is the page's folder."""

    def __init__(self, log: Path, tool: Callable[[str], str]) -> None:
        self.missing: list[str] = []  # tools, whose commands are left out
        self._log = log
        self._tool = tool
        self._namespace: dict[str, Any] = {"__name__": "page"}
        self._server: subprocess.Popen[bytes] | None = None
        self._ports: dict[str, str] = {}  # as the page says → as it is
        self._code = 0  # of the last verb

    def run(self, block: Block, shown: str | None) -> str | None:
        """What the block prints; None where it cannot be known."""
        if block.language == "python":
            return self._python(self._replaced(block.text, self._ports), shown is not None)
        printed = [self._command(words, shown) for words in commands_of(block.text)]
        return None if None in printed else "".join(map(str, printed))

    def write(self, block: Block) -> None:
        """Make the file that the block is."""
        path = Path(str(block.file))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._replaced(block.text, self._ports), "utf-8")

    def _python(self, source: str, may_raise: bool) -> str:
        with captured() as out:
            try:
                exec(compile(source, "page.py", "exec", dont_inherit=True), self._namespace)
            except Exception as error:
                if not may_raise:
                    raise
                print(*traceback.format_exception_only(type(error), error), sep="", end="")
        return out.getvalue()

    def _command(self, words: list[str], shown: str | None) -> str | None:
        words = [self._replaced(word, self._ports) for word in words]
        match words:
            case ["dynserve", "run", *options] | ["python", "-m", "dynserve", "run", *options]:
                return self._serve(options, shown)
            case ["echo", "$?"]:
                return f"{self._code}\n"
            case ["echo", given, "|", "dynserve", *arguments]:
                return self._verb(arguments, shown, f"{given}\n")
            case ["dynserve", *arguments] | ["python", "-m", "dynserve", *arguments]:
                return self._verb(arguments, shown)
            case ["python", *arguments]:
                return self._child(shown, sys.executable, *arguments)
            case ["openssl", *arguments]:
                # What follows needs its files, so without it the page ends here.
                return self._child(shown, self._tool("openssl"), *arguments)
            case [tool, *arguments] if tool in TOOLS:
                if shutil.which(tool) is None:
                    self.missing.append(tool)
                    return None
                return self._child(shown, tool, *arguments)
        raise AssertionError(f"a command that this test does not run: {shlex.join(words)}")

    def _verb(self, arguments: list[str], shown: str | None, given: str = "") -> str:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as stdin, captured(_Terminal()) as out:
            stdin.write(given)
            stdin.seek(0)
            sys.stdin, usual = stdin, sys.stdin
            try:
                self._code = invoke(arguments)
            finally:
                sys.stdin = usual
        assert shown is not None or self._code == 0, out.getvalue()
        return self._replaced(out.getvalue(), {is_: says for says, is_ in self._ports.items()})

    def _child(self, shown: str | None, *words: str) -> str:
        child = subprocess.run(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
            env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        )
        assert shown is not None or child.returncode == 0, child.stdout
        return self._replaced(child.stdout, {is_: says for says, is_ in self._ports.items()})

    def _serve(self, options: list[str], shown: str | None) -> str:
        """Start a server; what it prints, once it is as shown, or serves, or has ended."""
        self.stop()
        said = [match[1] for option in options if (match := _PORT.search(option))]
        options = [_PORT.sub(":0", option) for option in options]
        if "--listen" not in options:
            said = ["50051"]
            options += ["--listen", "127.0.0.1:0"]
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "dynserve", "run", *options], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while True:
            ended = self._server.poll() is not None or time.monotonic() > deadline
            printed = self._log.read_text("utf-8")
            listening = _LISTENING.findall(printed)
            ports = dict(zip(said, listening, strict=False))
            replaced = self._replaced(printed, {is_: says for says, is_ in ports.items()})
            if ended or (matches(shown, replaced) if shown else listening):
                if not listening:
                    self._server.wait(20)
                self._ports = ports
                return replaced
            time.sleep(0.01)  # another process; nothing here could wait for it

    @staticmethod
    def _replaced(text: str, ports: dict[str, str]) -> str:
        for old, new in ports.items():
            text = re.sub(rf":{old}\b", f":{new}", text)
        return text

    def stop(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGTERM)
            assert self._server.wait(20) == 0
        self._server, self._ports = None, {}


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class _Beside(io.TextIOBase):
    """Standard error, which is no terminal: there is no progress bar on a slow machine."""

    def __init__(self, out: io.StringIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        return self._out.write(text)


@contextlib.contextmanager
def captured(out: io.StringIO | None = None) -> Iterator[io.StringIO]:
    out = out or io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(_Beside(out)):
        yield out


def _is_not_run(command: str) -> bool:
    is_of_a_page = re.search(r"\btest_\w+\.py\b", command) is not None
    return command.startswith(tuple(NOT_RUN)) and not is_of_a_page


def commands_of(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        for command in line.split(" && "):
            if command.strip() and not _is_not_run(command):
                yield shlex.split(command)


@pytest.fixture
def runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]
) -> Iterator[Runner]:
    folder = tmp_path / "page"
    folder.mkdir()
    for name in ("examples", "protos"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NO_COLOR", "1")
    runner = Runner(tmp_path / "server.log", tool)
    yield runner
    runner.stop()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_snippet_runs_and_prints_what_the_page_shows(
    page: Path, runner: Runner, tool: Callable[[str], str]
) -> None:
    """What a page tells the reader to write works, and does what the page says."""
    blocks = blocks_of(page)
    for number, block in enumerate(blocks):
        following = blocks[number + 1] if number + 1 < len(blocks) else None
        shown = following.text if following and following.language == "text" else None
        if block.language == "text":
            continue
        if block.file is not None:
            runner.write(block)
            continue
        assert block.language in ("python", "sh"), f"a block that is not run:\n{block.text}"
        printed = runner.run(block, shown)
        assert shown is not None or block.language == "sh" or not printed, f"not shown: {printed}"
        if shown is not None and printed is not None:
            assert matches(shown, printed), f"{block.text}\nprints\n{printed}\nnot\n{shown}"
    runner.stop()
    for name in runner.missing:
        tool(name)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_snippet_is_only_for_show(page: Path) -> None:
    """Every block has a language, every file is used further down, every output is compared."""
    blocks = blocks_of(page)
    fences = re.findall(r"^\s*```", page.read_text("utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks), "a block without a language, or one that is indented"
    for number, block in enumerate(blocks):
        if block.language == "text":
            before = blocks[number - 1]
            assert number, block.text
            assert before.file is None, block.text
            assert before.language in ("python", "sh"), block.text
        elif block.file is not None and block.language in ("python", "proto"):
            path = Path(block.file)
            used = "\n".join(later.text for later in blocks[number + 1 :])
            names = {path.name, *path.with_suffix("").parts} - {"plugin"}
            assert re.search(rf"\b({'|'.join(names)})\b", used), (
                f"{path} is not used on {page.name}"
            )


def test_the_package_on_the_plugins_page_offers_a_plugin() -> None:
    """Its pyproject.toml, which is not built here, names the group and the page's module."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    listing, file = page.split("    # pyproject.toml\n")
    file, _, _ = file.partition("\nWith hatchling")
    project = tomllib.loads(textwrap.dedent(file))["project"]
    assert project["entry-points"] == {plugins.GROUP: {"weather": "my_package.weather:app"}}
    assert '        weather.py          app = App("weather.proto")\n' in listing


def test_the_table_has_every_flag_of_grpcurl(tool: Callable[[str], str]) -> None:
    """Who knows grpcurl finds each of its flags, and nothing that it has not."""
    helped = subprocess.run(
        [tool("grpcurl"), "-help"], capture_output=True, text=True, timeout=30, check=True
    )
    page = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    _, _, table = page.partition("## If you know grpcurl\n")
    named = re.findall(r"^\| `(-[\w-]+)` \|", table, re.MULTILINE)
    flags = re.findall(r"^  (-[\w-]+)", helped.stdout + helped.stderr, re.MULTILINE)
    assert sorted(named) == sorted(flags)


def settings_page(page: str) -> str:
    """docs/settings.md, with the tables as the code has them now."""
    for title, group in GROUPS.items():
        before, heading, after = page.partition(f"\n## {title}\n")
        section, following, rest = after.partition("\n## ")
        prose = re.sub(r"^\|.*\n", "", section, flags=re.MULTILINE).strip()
        page = f"{before}{heading}\n{prose}\n\n{settings_table(group)}{following}{rest}"
    return page


def settings_table(settings: Iterable[Setting]) -> str:
    rows = ["| Argument | Flag | Variable | Default | What it does |", "|---|---|---|---|---|"]
    for setting in settings:
        metavar = setting.type.metavar.replace("|", r"\|")
        flag = f"{setting.flag} {metavar}".strip()
        text = setting.help.replace("*", r"\*")
        if setting.default is True:
            text = f"With the flag: {text[0].lower()}{text[1:]}"
        columns = f"`{setting.name}`", f"`{flag}`", f"`{setting.variable}`", shown(setting), text
        rows.append(f"| {' | '.join(columns)} |")
    return "\n".join(rows) + "\n"


def shown(setting: Setting) -> str:
    """The default of a setting, as a person would write it."""
    match setting.type.metavar, setting.default:
        case _, None | ():
            return "none"
        case _, bool(default):
            return "on" if default else "off"
        case "SIZE", int(size):
            return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
        case "SECONDS", float(seconds):
            return f"{seconds:g} s"
        case _, default:
            return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_page_of_settings_has_every_setting() -> None:
    """Argument, flag, variable, default and meaning of each stand there as the code has them;
    ``python -m tests.test_docs`` writes them."""
    page = SETTINGS_PAGE.read_text("utf-8")
    assert page == settings_page(page)
    flags = re.findall(r"^\| `\w+` \| `(--[\w-]+)", page, re.MULTILINE)
    with captured() as out:
        invoke(["run", "--help"])
    _, _, told = out.getvalue().partition("\nServing:\n")
    assert flags == re.findall(r"^  (--[\w-]+)", told, re.MULTILINE)


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_every_variable_on_a_page_is_there(page: Path) -> None:
    """What the environment may say, and nothing else, stands on the pages."""
    known = {setting.variable for setting in SETTINGS.values()}
    known |= {"DYNSERVE_CACHE_DIR", "DYNSERVE_TOKEN"}
    named = set(re.findall(r"\bDYNSERVE_[A-Z_]*[A-Z]\b", page.read_text("utf-8")))
    assert named - known == set()


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_every_flag_of_run_on_a_page_is_there(page: Path) -> None:
    """Also in commands that are only read."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    said = " ".join(re.findall(r"\bdynserve run\b([^`\n]*)", text))
    known = {flag for option in run.params for flag in [*option.opts, *option.secondary_opts]}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", said)) - known == set()


def test_readme_has_the_two_commands() -> None:
    """A newcomer finds how to serve RouteGuide and how to run the tests, each in its own block."""
    alone = [block.text.strip() for block in blocks_of(ROOT / "README.md")]
    assert [text for text in alone if text.startswith("python -m pip")] == [SERVE, TEST]


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """A link to a file leads to one, and a link to a heading to one of that page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        other = page.parent / name if name else page
        if not other.exists() or (heading and heading not in anchors_of(other)):
            broken.append(target)
    assert broken == []


def anchors_of(page: Path) -> set[str]:
    """The headings as GitHub turns them into anchors."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every other page."""
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    pages = {page.name for page in PAGES[1:]} - {"README.md"}
    assert {name for name in pages if f"]({name})" not in index} == set()


def test_the_newest_change_is_the_packages_version() -> None:
    """The changelog's newest version is the version of the installed package."""
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[(\d[^\]]*)\] - ", changes, re.MULTILINE)
    assert newest is not None
    assert newest[1] == importlib.metadata.version("dynserve")


if __name__ == "__main__":
    SETTINGS_PAGE.write_text(settings_page(SETTINGS_PAGE.read_text("utf-8")), "utf-8")
