"""``dynserve call``: requests, responses, statuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from dynserve.cli.main import invoke

from .lab import Child, lab, reflecting, timeless, without_times


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = invoke(["call", *words])
    out, err = capsys.readouterr()
    return code, out, without_times(err)


# ---- requests


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["Echo", "-d", '{"number": 1, "text": "é"}'], '{"number": 1, "text": "é"}\n'),
        (["Echo"], "{}\n"),
        (["Echo", "-d", ""], "{}\n"),
        (["Down", "-d", '{"number": 2}'], '{}\n{"number": 1}\n'),
        (["Down"], ""),
        (["Up", "-d", '{"number": 1}{"number": 2}\n{"number":\n3}'], '{"number": 6}\n'),
        (["Up"], "{}\n"),
        (
            ["Chat", "-d", '{"text": "a}"}\n{"text": "b\\""}'],
            '{"text": "You said: a}"}\n{"text": "You said: b\\""}\n',
        ),
        (["Chat"], ""),
        (["Echo", "-d", "\ufeff{}"], "{}\n"),
        (["Echo", "-d", "@file.json"], '{"number": 7}\n'),
        (["Up", "-d", "@lines.json"], '{"number": 9}\n'),
        (["Up", "-d", "@empty.json"], "{}\n"),
    ],
)
def test_all_kinds(
    words: list[str],
    out: str,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One message or a stream each way; JSON from the words, from a file, or none at all."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.json").write_bytes(b'\xef\xbb\xbf{"number": 7}')
    (tmp_path / "lines.json").write_text('{"number": 4}\n\n{"number": 5}\n')
    (tmp_path / "empty.json").touch()
    assert said(capsys, address, f"lab.Lab/{words[0]}", *words[1:]) == (0, out, "")


@pytest.mark.parametrize("method", ["lab.Lab/Echo", "/lab.Lab/Echo", "lab.Lab.Echo"])
def test_spellings_of_a_method(
    method: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on the wire, and as grpcurl has it with a dot."""
    assert said(capsys, address, method) == (0, "{}\n", "")


@pytest.mark.parametrize("dash", ["-", "@", "@-"])
@pytest.mark.parametrize("method", ["Echo", "Up"])
def test_standard_input(
    dash: str,
    method: str,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is read to its end, for one request as for a stream."""
    ours, theirs = os.pipe()
    os.write(theirs, b'{"number": 5}')
    os.close(theirs)
    with os.fdopen(ours) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        words = (address, f"lab.Lab/{method}", "-d", dash, "--max-time", "20")
        assert said(capsys, *words) == (0, '{"number": 5}\n', "")


def test_a_response_comes_before_the_next_request(address: str) -> None:
    """What is written to standard input is sent at once, and its answer printed at once."""
    with Child.of("call", address, "lab.Lab/Chat", "-d", "-") as child:
        for name in ("ada", "grace"):
            child.write(f'{{"text": "{name}"}}')
            assert child.line() == f'{{"text": "You said: {name}"}}\n'
        child.process.stdin.close()
        assert child.end() == (0, "", "")


def test_the_server_ends_the_call_while_input_is_open(address: str) -> None:
    """The command ends with it: it does not wait for what is never written."""
    with Child.of("call", address, "lab.Lab/Up", "-d", "-") as child:
        child.write('{"number": -1}')
        assert child.end() == (75, "", "Error: OUT_OF_RANGE: -1 is too little\n")


def test_a_fifo(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever writes to it may open it after the call began; messages are sent as they come."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fifo.open("w") as file:
            file.write('{"number": 1} {"number": 2}')

    writer = threading.Thread(target=write)
    writer.start()
    assert said(capsys, address, "lab.Lab/Up", "-d", f"@{fifo}") == (0, '{"number": 3}\n', "")
    writer.join()


@pytest.mark.parametrize(
    ("words", "err"),
    [
        (["Echo", "-d", "{]"], "--data: lab.Item: Failed to load JSON: Expecting property name"),
        (["Echo", "-d", '{"number": 1'], "--data: lab.Item: Failed to load JSON: Expecting ','"),
        (["Echo", "-d", '{"text": "'], "--data: lab.Item: Failed to load JSON: Unterminated str"),
        (["Echo", "-d", "nonsense"], "--data: lab.Item: Failed to load JSON: Expecting value"),
        (
            ["Echo", "-d", '{"nummer": 1}'],
            '--data: lab.Item: Message type "lab.Item" has no field named "nummer"',
        ),
        (
            ["Echo", "-d", '{"number": "x"}'],
            "--data: lab.Item: Failed to parse number field: invalid literal",
        ),
        (["Echo", "-d", "{}{}"], "--data: lab.Lab/Echo takes one request, and this is more than"),
        (["Down", "-d", "{}{}"], "--data: lab.Lab/Down takes one request, and this is more than"),
        (["Echo", "-d", "{} x"], "--data, message 2: lab.Item: Failed to load JSON: Expecting"),
        (["Up", "-d", '{}{"number": "x"}'], "--data, message 2: lab.Item: Failed to parse number"),
        (["Up", "-d", "x"], "--data, message 1: lab.Item: Failed to load JSON: Expecting value"),
        (["Up", "-d", "@nope"], "--data @nope: No such file or directory.\n"),
        (["Up", "-d", "@."], "--data @.: Is a directory.\n"),
        (["Echo", "-d", "@utf16"], "--data @utf16: not UTF-8: invalid start byte.\n"),
        (["Echo", "-d", "@cut"], "--data @cut: not UTF-8: unexpected end of data.\n"),
        (["Echo", "-d", "-"], "--data -: standard input is closed.\n"),
        (["Echo", "-d", "number: x", "--format", "text"], "--data: lab.Item: 1:9 : "),
        (["Up", "-d", "\x1ebad: 1", "--format", "text"], "--data, message 2: lab.Item: 1:1 : "),
    ],
)
def test_data_that_does_not_fit(
    words: list[str],
    err: str,
    closed: str,
    protos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2 and a text that names the message; nothing was sent: nobody listens there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", None)
    (tmp_path / "utf16").write_bytes("{}".encode("utf-16"))
    (tmp_path / "cut").write_bytes("{}é".encode()[:-1])
    proto = ("--proto", str(protos / "lab.proto"))
    code, out, told = said(capsys, closed, f"lab.Lab/{words[0]}", *words[1:], *proto)
    assert (code, out) == (2, "")
    assert told.startswith(f"Error: {err}")


def test_a_file_that_does_not_fit_in_time(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --max-time the same is said."""
    (tmp_path / "a").write_bytes(b"\xff")
    words = ("-d", f"@{tmp_path}/a", "--max-time", "20")
    assert said(capsys, address, "lab.Lab/Echo", *words) == (
        2,
        "",
        f"Error: --data @{tmp_path}/a: not UTF-8: invalid start byte.\n",
    )


def test_a_required_field(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked for by its name before anything is sent."""
    missing = "Error: --data: required fields are missing: text.\n"
    assert said(capsys, address, "old.Notes/Put", "-d", "{}") == (2, "", missing)
    assert said(capsys, address, "old.Notes/Put", "-d", '{"text": "a"}') == (
        0,
        '{"text": "a"}\n',
        "",
    )


def test_a_message_of_a_stream_that_does_not_fit(address: str, tmp_path: Path) -> None:
    """The call is cancelled where it is, and what was wrong is told, not the cancellation."""
    with Child.of("call", address, "lab.Lab/Chat", "-d", "-") as child:
        child.write('{"text": "a"}')
        assert child.line() == '{"text": "You said: a"}\n'
        child.write("nonsense\n")
        code, out, err = child.end()
    assert (code, out) == (2, "")
    assert err.startswith("Error: --data, message 2: lab.Item: Failed to load JSON: ")


# ---- responses


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (
            ["--format", "text", "-d", 'number: 1 text: "a"\x1enumber: 2\x1e'],
            'text: "You said: a"\n\x1e\ntext: "You said: "\n\x1e\ntext: "You said: "\n',
        ),
        (["--format", "text"], ""),
        (["--format", "text", "--compact", "-d", "  "], ""),
        (["--indent", "-d", '{"text": "a"}'], '{\n  "text": "You said: a"\n}\n'),
        (["--compact", "-d", '{"text": "a"}'], '{"text": "You said: a"}\n'),
    ],
)
def test_forms(
    words: list[str], out: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON on one line or several; the text format with 0x1E between messages, both ways."""
    assert said(capsys, address, "lab.Lab/Chat", *words) == (0, out, "")


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ([], '{\n  "text": "You said: a"\n}\n'),
        (["--compact"], '{"text": "You said: a"}\n'),
    ],
)
def test_a_person_reads_indented_json(
    words: list[str],
    out: str,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On a terminal a response has several lines, unless one is asked for."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert said(capsys, address, "lab.Lab/Chat", "-d", '{"text": "a"}', *words) == (0, out, "")


def test_the_text_format(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says the same as JSON, fields on lines of their own or beside each other."""
    hidden = "[type.googleapis.com/lab.Hidden]"
    data = f'number: 1 text: "é" any {{ {hidden} {{ secret: "s" }} }} part {{ name: "p" }}'
    words = (address, "lab.Lab/Echo", "--format", "text", "-d", data)
    assert said(capsys, *words) == (0, f"{data}\n", "")
    assert said(capsys, *words, "--indent") == (
        0,
        f'number: 1\ntext: "é"\nany {{\n  {hidden} {{\n    secret: "s"\n  }}\n}}\n'
        'part {\n  name: "p"\n}\n',
        "",
    )


def test_defaults(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--emit-defaults prints the fields without presence, in JSON only."""
    words = (address, "lab.Lab/Echo", "--emit-defaults")
    assert said(capsys, *words) == (0, '{"number": 0, "text": "", "parts": []}\n', "")
    assert said(capsys, *words, "--format", "text") == (
        0,
        "\n",
        "Warning: --emit-defaults has no effect on the text format\n",
    )


def test_an_any_of_a_type_that_only_reflection_knows(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server is asked for it, in a response as in a request; no method and no import names it.

    Where nobody knows it the rest is printed, and a warning.
    """
    any_ = '{"any": {"@type": "type.googleapis.com/lab.Hidden", "secret": "é"}}\n'
    assert said(capsys, address, "lab.Lab/Hold") == (
        0,
        any_.replace("{", '{"text": "held", ', 1),
        "",
    )
    assert said(capsys, address, "lab.Lab/Echo", "-d", any_) == (0, any_, "")
    assert said(capsys, address, "lab.Lab/Hold", "-d", '{"number": 1}') == (
        0,
        '{"text": "held", "any": {"@type": "x.org/gone.Type"}}\n',
        f"Warning: {address} does not tell of gone.Type: its content is not shown\n",
    )
    unknown = any_.replace("Hidden", "Unknown")
    code, out, err = said(capsys, address, "lab.Lab/Echo", "-d", unknown)
    assert (code, out) == (2, "")
    assert err.startswith("Error: --data: lab.Item: ")
    assert "lab.Unknown" in err


def test_an_any_beside_sources(
    silent: str, protos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what the sources do not declare the content is not shown; the rest is."""
    words = (silent, "lab.Lab/Hold", "--proto", str(protos / "lab.proto"))
    code, out, _ = said(capsys, *words)
    assert (code, out) == (
        0,
        '{"text": "held", "any": {"@type": "type.googleapis.com/lab.Hidden"}}\n',
    )


# ---- statuses


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_the_exit_code_is_64_and_the_status_code(
    code: grpc.StatusCode, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever it is; the text is the status."""
    number = code.value[0]
    assert said(capsys, address, "lab.Lab/Fail", "-d", f'{{"number": {number}}}') == (
        64 + number,
        "",
        f"Error: {code.name}: as asked\n",
    )


def test_rich_details(
    address: str, silent: str, protos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is a line: those of google.rpc, those of the server's own types, and the unknown."""
    known = (
        "Error: INVALID_ARGUMENT: no good\n"
        '  google.rpc.BadRequest: {"fieldViolations": [{"field": "text",'
        ' "description": "too long"}]}\n'
    )
    gone = '  google.protobuf.Any: type_url: "x.org/gone.Type" value: "\\001"\n'
    assert said(capsys, address, "lab.Lab/Details") == (
        67,
        "",
        f'{known}  lab.Hidden: {{"secret": "é"}}\n{gone}',
    )
    words = (silent, "lab.Lab/Details", "--proto", str(protos / "lab.proto"))
    hidden = (
        '  google.protobuf.Any: type_url: "type.googleapis.com/lab.Hidden"'
        ' value: "\\n\\002\\303\\251"\n'
    )
    assert said(capsys, *words) == (67, "", known + hidden + gone)


def test_damaged_details(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They are no details, and no second error."""
    words = (address, "lab.Lab/Details", "-d", '{"number": 1}')
    assert said(capsys, *words) == (74, "", "Error: ABORTED: bad\n")


def test_a_peer_does_not_command_the_terminal(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters of a server are shown, and not obeyed."""
    evil = '{"number": 5, "text": "\\u001b[2J\\u009b\\né"}'
    assert said(capsys, address, "lab.Lab/Fail", "-d", evil) == (
        69,
        "",
        "Error: NOT_FOUND: \\x1b[2J\\x9b\né\n",
    )
    assert said(capsys, address, "lab.Lab/Echo", "-d", evil) == (0, f"{evil}\n", "")


def test_responses_before_an_error_are_printed(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """--timeout ends the call with DEADLINE_EXCEEDED, after what came before."""
    code, out, err = said(capsys, address, "lab.Lab/Wait", "--timeout", "0.8")
    assert (code, out) == (68, '{"number": 1}\n')
    assert err.startswith("Error: DEADLINE_EXCEEDED: ")  # whose words it is, is gRPC's affair


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("method", ["Wait", "Echo", "Up", "Chat"])
def test_max_time_bounds_the_call(
    method: str,
    verbose: bool,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stream that does not end, and standard input that says nothing, are given up."""
    limit = "0.8" if method == "Wait" else "0.2"
    ours, theirs = os.pipe()
    with os.fdopen(ours) as stdin, os.fdopen(theirs, "w"):
        monkeypatch.setattr("sys.stdin", stdin)
        words = [address, f"lab.Lab/{method}", "--max-time", limit]
        words += [] if method == "Wait" else ["-d", "-"]
        code, out, err = said(capsys, *words, *(["-v"] if verbose else []))
    assert (code, out) == (68, '{"number": 1}\n' if method == "Wait" else "")
    last = f"Error: DEADLINE_EXCEEDED: not done after {limit} s (--max-time)\n"
    assert err.endswith(last) if verbose else err == last


@pytest.mark.parametrize("verb", ["call", "list", "describe", "export"])
def test_max_time_bounds_reflection(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that takes the question and never answers is given up, by every verb."""
    more = {"call": ["a.B/C"], "export": ["-o", "-"]}.get(verb, [])
    with timeless().server("127.0.0.1:0", reflection=False).in_thread(0) as server:
        assert invoke([verb, server.addresses[0], *more, "--max-time", "0.3"]) == 68
    assert capsys.readouterr() == (
        "",
        "Error: DEADLINE_EXCEEDED: not done after 0.3 s (--max-time)\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "err"),
    [
        (["ADDR", "lab.Lab/Ecko"], 1, "no method 'lab.Lab/Ecko' in the schema; did you mean"
         " 'lab.Lab/Echo'?"),
        (["ADDR", "lab.Lob/Echo"], 1, "no service 'lab.Lob' on ADDR; did you mean 'lab.Lab'?"),
        (["ADDR", "Echo"], 1, "no method 'Echo' (expected pkg.Service/Method)"),
        (["SILENT", "lab.Lab/Echo"], 1, "SILENT: serves no reflection; name its .proto files with"
         " --proto"),
        (["lab.proto", "lab.Lab/Echo"], 2, "lab.proto: names sources; `dynserve call` needs the"
         " HOST:PORT of a server"),
        (["./nowhere", "lab.Lab/Echo"], 2, "./nowhere: names sources; `dynserve call` needs the"
         " HOST:PORT of a server"),
    ],
)  # fmt: skip
def test_mistakes_are_told(
    words: list[str],
    code: int,
    err: str,
    address: str,
    silent: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One text says what was got and what to write."""
    for name, place in (("ADDR", address), ("SILENT", silent)):
        words = [place if word == name else word for word in words]
        err = err.replace(name, place)
    assert said(capsys, *words) == (code, "", f"Error: {err}\n")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e9", "x"])
def test_a_timeout_is_a_number_of_seconds(
    value: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else reaches gRPC."""
    code, out, err = said(capsys, address, "lab.Lab/Echo", "--timeout", value)
    assert (code, out) == (2, "")
    assert "Error: Invalid value for '--timeout': " in err


def test_too_long_a_response(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--max-message-bytes is the longest that is taken: RESOURCE_EXHAUSTED."""
    words = (address, "lab.Lab/Echo", "-d", json.dumps({"text": "x" * 2000}))
    code, out, err = said(capsys, *words, "--max-message-bytes", "1500")
    assert (code, out) == (72, "")
    assert err.startswith("Error: RESOURCE_EXHAUSTED: ")
    assert "larger than max" in err
    long = "x" * 5_000_000  # longer than gRPC's own limit
    file = (address, "lab.Lab/Echo", "-d", json.dumps({"text": long}))
    assert said(capsys, *file, "--max-message-bytes", "6000000") == (
        0,
        f'{{"text": "{long}"}}\n',
        "",
    )


# ---- metadata


def test_metadata_and_timing(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """-v says what is sent and what comes, before and after the responses; -bin in base64."""
    words = ("-v", "-H", "X-Name: a: b", "-H", "x-data-bin:AQI", "-H", "x-data-bin: /w==")
    assert said(capsys, address, "lab.Lab/Metadata", *words) == (
        0,
        """{"text": "x-name='a: b' x-data-bin=b'\\\\x01\\\\x02' x-data-bin=b'\\\\xff'"}\n""",
        "* lab.Lab/Metadata (unary-unary), found in 1.0 ms\n"
        "> x-name: a: b\n"
        "> x-data-bin: AQI=\n"
        "> x-data-bin: /w==\n"
        "* headers after 1.0 ms\n"
        "< first: 1\n"
        "< first-bin: Af8=\n"
        "* first response after 1.0 ms\n"
        "* trailers\n"
        "< last: 2\n"
        "< last-bin: Ag==\n"
        "* OK, 1 response, 1.0 ms in all\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "err"),
    [
        (
            ["Down", "-d", '{"number": 2}'],
            0,
            "* lab.Lab/Down (unary-stream), found in 1.0 ms\n"
            "* headers after 1.0 ms\n"
            "* first response after 1.0 ms\n"
            "* trailers\n"
            "* OK, 2 responses, 1.0 ms in all\n",
        ),
        (
            ["Fail", "-d", '{"number": 5}'],
            69,
            "* lab.Lab/Fail (unary-unary), found in 1.0 ms\n"
            "* headers after 1.0 ms\n"
            "* trailers\n"
            "* NOT_FOUND, 0 responses, 1.0 ms in all\n"
            "Error: NOT_FOUND: as asked\n",
        ),
    ],
)
def test_metadata_and_timing_of_others(
    words: list[str], code: int, err: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stream counts its responses; a call that fails says what came with the status."""
    got, _, told = said(capsys, address, f"lab.Lab/{words[0]}", *words[1:], "-v")
    assert (got, told) == (code, err)


@pytest.mark.parametrize(
    ("option", "header", "err"),
    [
        ("-H", "nonsense", "got header 'nonsense', expected 'name: value'."),
        ("-H", ": x", "got header ': x', expected 'name: value'."),
        ("-H", "a b: x", "metadata key 'a b' has characters other than a-z 0-9 _ . -."),
        ("-H", "grpc-x: y", "metadata key 'grpc-x' is reserved for gRPC itself."),
        (
            "--reflect-header",
            "name: é",
            "metadata 'name' has a value with characters that are not printable ASCII; name it"
            " 'name-bin' and give bytes.",
        ),
        ("-H", "x-bin: é", "header 'x-bin' is binary by its name: give its value in base64."),
        ("-H", "x-bin: a", "header 'x-bin' is binary by its name: give its value in base64."),
    ],
)
def test_headers_that_are_none(
    option: str, header: str, err: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are wrong words of the user, said before anything is sent."""
    assert said(capsys, address, "lab.Lab/Echo", option, header) == (
        2,
        "",
        "Usage: dynserve call [OPTIONS] ADDR PKG.SERVICE/METHOD\n"
        f"Try 'dynserve call --help' for help.\n\nError: {err}\n",
    )


def test_metadata_for_reflection_only(protos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--reflect-header reaches reflection and no call; -H reaches both."""
    seen: list[tuple[str, str]] = []
    served = lab(protos)
    files = [
        FileDescriptorProto.FromString(served.schema.index.raw(name))
        for name in served.schema.index.files
    ]
    app = reflecting(files, "lab.Lab", seen=seen)
    app.mount(served)
    with app.server("127.0.0.1:0", reflection=False).in_thread() as server:
        words = ("-H", "x-a: 1", "--reflect-header", "x-b: 2")
        assert said(capsys, server.addresses[0], "lab.Lab/Metadata", *words) == (
            0,
            """{"text": "x-a='1'"}\n""",
            "",
        )
    assert set(seen) == {("x-a", "1"), ("x-b", "2")}


# ---- the process


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Children heed Ctrl-C, though the tests may run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("words", [["-d", "-"], ["-d", "-", "--max-time", "60"]])
def test_ctrl_c_while_it_reads(words: list[str], address: str) -> None:
    """The same where standard input is waited for."""
    with Child.of("call", address, "lab.Lab/Echo", "-v", *words) as child:
        assert child.process.stderr.readline().startswith("* lab.Lab/Echo (unary-unary), found in ")
        child.process.send_signal(signal.SIGINT)
        assert child.end() == (130, "", "\n")


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c(address: str) -> None:
    """130, as shells have it, and no traceback."""
    with Child.of("call", address, "lab.Lab/Wait") as child:
        assert child.line() == '{"number": 1}\n'
        child.process.send_signal(signal.SIGINT)
        assert child.end() == (130, "", "\n")


def test_whoever_reads_has_gone(address: str) -> None:
    """``| head -1``: the command ends with the first response that nobody takes, and is quiet."""
    ours, theirs = os.pipe()
    with (
        os.fdopen(ours) as reader,
        Child.of("call", address, "lab.Lab/Chat", "-d", "-", stdout=theirs) as child,
    ):
        os.close(theirs)
        child.write('{"text": "a"}')
        assert reader.readline() == '{"text": "You said: a"}\n'
        reader.close()
        child.write('{"text": "b"}')
        assert child.end() == (1, "", "")


@pytest.mark.parametrize(
    ("words", "out"),
    [([], '{"text": "\\u00e9"}\n'), (["--format", "text"], 'text: "\\303\\251"\n')],
)
def test_an_output_that_has_no_unicode(words: list[str], out: str, address: str) -> None:
    """What it cannot hold is escaped, in the way of the form that it has."""
    data = 'text: "é"' if words else '{"text": "é"}'
    command = ("call", address, "lab.Lab/Echo", "-d", data, *words)
    with Child.of(*command, env={"PYTHONIOENCODING": "iso8859-5"}) as child:
        assert child.end() == (0, out, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("verb", ["list", "describe"])
def test_a_full_disk(verb: str, protos: Path) -> None:
    """It is told, with no traceback."""
    with (
        open("/dev/full", "w") as full,
        Child.of(verb, str(protos / "lab.proto"), stdout=full) as child,
    ):
        assert child.end() == (1, "", "Error: [Errno 28] No space left on device\n")


def test_a_closed_output(address: str) -> None:
    """Where there is nothing to write to, nothing is written."""
    script = f"{sys.executable} -m dynserve call {address} lab.Lab/Echo >&-"
    done = subprocess.run(
        ["sh", "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_no_server_is_loaded_for_a_call(address: str) -> None:
    """A cold call is quick for what it does not import."""
    code = (
        "import sys; from dynserve.cli.main import invoke;"
        " invoke(sys.argv[1:]); print(*sorted(name for name in sys.modules"
        " if name in ('rich', 'dynserve.server', 'dynserve.app', 'dynserve.cli.export')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "call", address, "lab.Lab/Echo"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("{}\n\n", "")
