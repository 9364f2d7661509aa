"""``dynserve``: help, exit codes, and how errors are told."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dynserve import App, plugins
from dynserve.app import Defaults
from dynserve.cli.main import cli, invoke, main

from .lab import ROOT

HELP = """\
Usage: dynserve [OPTIONS] COMMAND [ARGS]...

  Serve any .proto from Python, and call any server, with no generated code.

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
  call        Call a method of a server.
  check       Compile sources and report every error.
  completion  Print a script for completion in a shell.
  describe    Show symbols as .proto text.
  envoy       Write a configuration with which Envoy balances calls over...
  export      Write what a server reflects to files.
  list        List services, or the methods of one.
  run         Serve plugins until Ctrl-C or SIGTERM.
"""
HELP_CHECK = """\
Usage: dynserve check [OPTIONS] PATH...

  Compile sources and report every error.

  A PATH is a .proto file, a folder or a descriptor set; all of them are one
  schema. Warnings are reported too. The exit code is 0 when it compiles,
  warnings or not, and 1 when it does not.

Options:
  -I, --include DIR  A root that imports are searched in, before any other and
                     in the order given; for a file below one, no other is
                     inferred. Repeatable.
  -q, --quiet        Print nothing but errors and warnings.
  -h, --help         Show this message and exit.
"""
HELP_RUN = """\
Usage: dynserve run [OPTIONS] [TARGET]...

  Serve plugins until Ctrl-C or SIGTERM.

  A TARGET is a .py file, a folder with a plugin.py, package.module:attribute,
  or the name of an installed plugin. Several are served side by side, each
  with a schema of its own.

  Examples:
    dynserve run examples/route_guide
    dynserve run plugin.py mypackage.service:app --listen 0.0.0.0:8080
    dynserve run --proto third_party/ -I third_party

  What is not among the first options may also be said by a variable of the
  environment, DYNSERVE_GRACE for --grace; a flag goes before it.

Options:
  -p, --proto SOURCE              A schema source for plugins that name none:
                                  a .proto file, a folder, a descriptor set,
                                  package:NAME/PATH. With no TARGET it is
                                  served as it is. Repeatable.
  -I, --include DIR               A root that imports are searched in, before
                                  any other and in the order given; for a file
                                  below one, no other is inferred. Repeatable.
  --listen HOST:PORT              An address to listen on: HOST:PORT,
                                  [IPV6]:PORT, unix:PATH; port 0 lets the
                                  system choose. Repeatable.  [default:
                                  127.0.0.1:50051]
  --log-level [debug|info|warning|error|critical]
                                  What is logged to standard error.  [default:
                                  info]
  -h, --help                      Show this message and exit.

Serving:
  --strict                   Refuse to start while a method has no handler.
  --no-reflection            Do not let clients discover the services.
  --no-health                Do not serve grpc.health.v1.Health.
  --validate                 Check requests by the protovalidate rules of
                             their .proto; needs dynserve[validate].
  --engine [auto|queue|aio]  What carries the calls: queue is several times
                             faster, aio uses public parts of grpcio only;
                             auto takes the first where it works.  [default:
                             auto]
  --workers N                How many processes serve, on the same ports; a
                             supervisor restarts those that die, and replaces
                             them on SIGHUP.
  --threads N                How many unary sync handlers run at the same
                             time; by default four times the cores and eight,
                             at most 64.
  --stream-threads N         How many streaming sync handlers run at the same
                             time.  [default: 1000]

TLS and sockets:
  --tls-cert FILE                 The server's certificate chain, PEM. It is
                                  read again when it changes.
  --tls-key FILE                  Its private key, PEM.
  --tls-client-ca FILE            Ask clients for a certificate that one of
                                  these signed, PEM.
  --tls-require-client-cert / --no-tls-require-client-cert
                                  Whether a client without a certificate is
                                  refused. It is where tls_client_ca is given:
                                  gRPC for Python cannot only ask.
  --unix-mode MODE                The permissions of unix sockets, such as
                                  660; by default what the umask gives.
  --xds                           Take the configuration from an xDS control
                                  plane, by GRPC_XDS_BOOTSTRAP.

Authentication:
  --auth-tokens FILE              Bearer tokens that may call, one a line:
                                  NAME:TOKEN.
  --auth-jwks [URL|FILE]          The keys of JSON web tokens that may call: a
                                  URL or a file; needs dynserve[auth].
  --auth-issuer TEXT              The issuer that such tokens must have.
  --auth-audience TEXT            The audience that such tokens must have.
  --auth-api-keys FILE            API keys that may call, one a line:
                                  NAME:KEY.
  --auth-client-cert WORDS        Names of client certificates that may call,
                                  with * for any part that has no slash; '*'
                                  alone is any certificate of the CA.
  --auth-public WORDS             Methods that anybody may call:
                                  pkg.Service/Method or pkg.Service/*.
  --auth-health [open|required]   Whether health checks have to be
                                  authenticated, where calls do.  [default:
                                  open]
  --auth-reflection [open|required]
                                  The same for reflection.  [default:
                                  required]

Limits:
  --max-receive-size SIZE         The largest request message.  [default:
                                  4MiB]
  --max-send-size SIZE            The largest response message; no limit by
                                  default.
  --max-metadata-size SIZE        The largest metadata of a request, as HTTP/2
                                  counts it: names, values and 32 bytes for
                                  each.  [default: 16KiB]
  --maximum-concurrent-rpcs N     Calls past it are refused with
                                  RESOURCE_EXHAUSTED; health and reflection do
                                  not count.
  --max-concurrent-streams N      Calls that one connection may have open; off
                                  for no limit.  [default: 1000]
  --max-connection-age SECONDS    After it a connection is told to go, so that
                                  load balancing sees new servers; no limit by
                                  default.
  --max-connection-age-grace SECONDS
                                  How long its calls may then go on; no limit
                                  by default.
  --max-connection-idle SECONDS   A connection without calls is told to go
                                  after it; no limit by default.
  --keepalive-time SECONDS        After such a silence the peer is asked
                                  whether it is there; by default two hours,
                                  as gRPC has it.
  --keepalive-timeout SECONDS     How long it has to answer; by default 20 s.
  --min-ping-interval SECONDS     A client that pings more often while nothing
                                  is sent to it is cut off; by default 300 s,
                                  as gRPC has it.
  --default-timeout SECONDS       The deadline of calls that have none.
  --max-timeout SECONDS           The longest deadline; a later one is
                                  shortened.
  --max-queue-wait SECONDS        A unary call that has waited so long for a
                                  thread is refused with RESOURCE_EXHAUSTED;
                                  off for no limit.  [default: 30]

Stopping:
  --grace SECONDS       How long calls under way may go on when the server
                        stops.  [default: 10]
  --drain-wait SECONDS  How long to serve on after SIGTERM, while health says
                        NOT_SERVING, for load balancers to notice.  [default:
                        0]

Seeing:
  --access-log [off|text|json]  Log each call.  [default: off]
  --access-log-sample SHARE     The share of calls that are logged; those that
                                the server failed always are.  [default: 1]
  --traces                      OpenTelemetry traces and metrics; needs
                                dynserve[otel].
  --metrics TEXT                HOST:PORT where Prometheus may scrape metrics;
                                needs dynserve[prometheus].
  --admin                       Serve channelz and what runs right now; needs
                                dynserve[admin].
"""

CONNECTION = """\
  -p, --proto SOURCE              Take the services from this source, not from
                                  the server's reflection: a .proto file, a
                                  folder, package:NAME/PATH. Repeatable.
  -I, --include DIR               An import root for .proto files. Repeatable.
  --descriptor-set FILE           Take the services from this descriptor set.
                                  Repeatable.
  -H, --header 'NAME: VALUE'      Send this metadata with the call and with
                                  reflection; the value of a name that ends in
                                  -bin is base64. Repeatable.
  --reflect-header 'NAME: VALUE'  Send this metadata with reflection only.
                                  Repeatable.
  --tls                           Use TLS; trust the system's authorities.
  --cacert FILE                   Use TLS; trust the authorities in this PEM
                                  file instead.
  --cert FILE                     Use TLS; present this certificate, a PEM
                                  file, to the server. Needs --key.
  --key FILE                      The private key of --cert, a PEM file.
  --server-name NAME              Use TLS; expect this name, not the host's,
                                  in the server's certificate.
  --token TOKEN                   Use TLS; send 'authorization: Bearer TOKEN'
                                  with every call.  [env var: DYNSERVE_TOKEN]
  --max-time SECONDS              The longest time for all of it: connecting,
                                  reflection and the call.  [x>0]
  --max-message-bytes BYTES       The longest message to send or receive.
                                  [default: 4194304 to receive]
                                  [1<=x<=2147483647]
  --keepalive SECONDS             Probe the connection when it has been idle
                                  for this long.  [x>0]
  -h, --help                      Show this message and exit.
"""
HELP_LIST = """\
Usage: dynserve list [OPTIONS] ADDR|SOURCE [SERVICE]

  List services, or the methods of one.

  ADDR is HOST:PORT or unix:PATH. The server there is asked by reflection,
  unless --proto or --descriptor-set says what it serves. SOURCE is a .proto
  file, a folder, a descriptor set or package:NAME/PATH; then no server is
  asked.

  Examples:
    dynserve list localhost:50051
    dynserve list localhost:50051 routeguide.RouteGuide
    dynserve list protos/

Options:
"""
HELP_DESCRIBE = """\
Usage: dynserve describe [OPTIONS] ADDR|SOURCE [SYMBOL]...

  Show symbols as .proto text.

  A SYMBOL is the full name of a service, method, message, field, enum or
  extension; a method may also be named as pkg.Service/Method. Without a
  SYMBOL every service is shown. Comments are shown, too, where the server or
  the source has them.

  Examples:
    dynserve describe localhost:50051 routeguide.RouteGuide
    dynserve describe localhost:50051 routeguide.RouteGuide/GetFeature --json-template
    dynserve describe protos/ routeguide.Feature

Options:
  --json-template                 Print a JSON request to fill in instead, for
                                  a method or a message.
"""
HELP_CALL = """\
Usage: dynserve call [OPTIONS] ADDR PKG.SERVICE/METHOD

  Call a method of a server.

  ADDR is HOST:PORT or unix:PATH. Messages are JSON; those of a stream are
  sent as they are read and printed as they arrive. The exit code is 0 for the
  status OK, and 64 + the status code for any other.

  Examples:
    dynserve call localhost:50051 helloworld.Greeter/SayHello -d '{"name": "you"}'
    dynserve call localhost:50051 chat.ChatService/Chat -d -

Options:
  -d, --data JSON|@FILE|-         The request; for a stream several,
                                  concatenated or one on each line. @FILE
                                  reads a file, - reads standard input, and
                                  each message is sent as soon as it is read.
                                  Without --data an empty request is sent, or
                                  a stream of none.
  --timeout SECONDS               The deadline of the call; the server is
                                  told.  [x>0]
  --format [json|text]            The form of requests and responses: JSON, or
                                  protobuf's text format with a record
                                  separator (0x1E) between messages.
                                  [default: json]
  --emit-defaults                 Print fields that have their default value,
                                  too (JSON only).
  --compact / --indent            Print each response on one line, or on
                                  several.  [default: --indent on a terminal]
  -v, --verbose                   Print metadata and timing to standard error.
"""
HELP_EXPORT = """\
Usage: dynserve export [OPTIONS] ADDR|SOURCE [SYMBOL]...

  Write what a server reflects to files.

  The files are a descriptor set, or .proto files that compile to the same
  descriptors. A SYMBOL is a full name, such as pkg.Service: its file and what
  that imports are written. Without a SYMBOL every service of the server is
  exported, or every file of the source.

  Examples:
    dynserve export localhost:50051 -o set.binpb
    dynserve export localhost:50051 --proto-dir protos

Options:
  -o, --output FILE               Write a descriptor set, with everything that
                                  is imported; - is standard output.
  --proto-dir DIR                 Write .proto files below this folder, but
                                  not the google/protobuf ones that they
                                  import: protoc and buf have those.
  --force                         Replace .proto files that differ.
"""
HELP_COMPLETION = """\
Usage: dynserve completion [OPTIONS] {bash|zsh|fish}

  Print a script for completion in a shell.

  It completes verbs, options, files, services, methods and symbols; for the
  last three it asks the server or reads the source that was named before.

  Examples:
    dynserve completion bash > ~/.local/share/bash-completion/completions/dynserve
    dynserve completion zsh > ~/.zfunc/_dynserve
    dynserve completion fish > ~/.config/fish/completions/dynserve.fish

Options:
  -h, --help  Show this message and exit.
"""


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help is as wide as a terminal; that of these tests has 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize(
    ("verb", "text"),
    [
        ("", HELP),
        ("call", HELP_CALL + CONNECTION),
        ("check", HELP_CHECK),
        ("completion", HELP_COMPLETION),
        ("describe", HELP_DESCRIBE + CONNECTION),
        ("export", HELP_EXPORT + CONNECTION),
        ("list", HELP_LIST + CONNECTION),
        ("run", HELP_RUN),
    ],
)
def test_help_of_every_verb(
    verb: str, option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each verb says what it takes, with examples; no other document is needed to use it."""
    assert invoke([*verb.split(), option]) == 0
    assert capsys.readouterr() == (text, "")


CONTEXT = click.Context(cli)
VERBS = {
    name: command
    for name in cli.list_commands(CONTEXT)
    if (command := cli.get_command(CONTEXT, name)) is not None
}
EXAMPLES = [
    line.strip()
    for command in VERBS.values()
    for line in (command.help or "").partition("Examples:")[2].splitlines()
    if line.strip() and command.name != "run"  # which does not end
]


@pytest.fixture(scope="module")
def examples(cache: Path) -> Iterator[str]:
    """The address of the examples that the help texts name."""
    app = App()
    for name in ("chat", "greeter", "route_guide"):
        app.mount(plugins.load(str(ROOT / "examples" / name), Defaults()))
    with app.server("127.0.0.1:0").in_thread() as server:
        yield server.addresses[0]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_help_texts(
    example: str,
    examples: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They run as they stand there, but for the port."""
    monkeypatch.chdir(tmp_path)
    if "export" not in example:
        shutil.copytree(ROOT / "protos", "protos")
    command, _, _file = example.replace("localhost:50051", examples).partition(" > ")
    program, *words = shlex.split(command)
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        code = invoke(words)
    out, err = capsys.readouterr()
    assert (program, code) == ("dynserve", 0), err
    assert bool(out) == (words[0] != "export" and words[-1] != "-")


def test_all_examples_are_found() -> None:
    """As many as the texts have."""
    assert len(EXAMPLES) == 15


def test_every_verb_is_known_here() -> None:
    """The texts above are of all verbs that there are."""
    verbs = ["call", "check", "completion", "describe", "envoy", "export", "list", "run"]
    assert sorted(VERBS) == verbs


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the installed package."""
    assert invoke(["--version"]) == 0
    assert capsys.readouterr() == (f"dynserve {importlib.metadata.version('dynserve')}\n", "")


@pytest.mark.parametrize(
    ("words", "err"),
    [
        ([], HELP),
        (
            ["rum"],
            "Usage: dynserve [OPTIONS] COMMAND [ARGS]...\nTry 'dynserve --help' for help.\n\n"
            "Error: No such command 'rum'.",
        ),
        (
            ["run"],
            "Usage: dynserve run [OPTIONS] [TARGET]...\nTry 'dynserve run --help' for help.\n\n"
            "Error: name a TARGET to serve, or a schema with --proto.\n",
        ),
        (
            ["run", "x", "--grace", "-1"],
            "Usage: dynserve run [OPTIONS] [TARGET]...\nTry 'dynserve run --help' for help.\n\n"
            "Error: Invalid value for '--grace': got '-1', expected a number of seconds, 0 or"
            " more\n",
        ),
    ],
)
def test_wrong_words_exit_with_2(
    words: list[str], err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A usage error says how the command is used, on stderr."""
    assert invoke(words) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith(err)  # newer clicks go on with what may have been meant


@pytest.mark.parametrize(
    ("word", "verb"),
    [
        ("hello.py", "run"),
        ("folder", "run"),
        ("folder/a.proto", "check"),
        ("localhost:50051", "list"),
        ("unix:/run/s", "list"),
    ],
)
def test_a_target_without_a_verb(
    word: str,
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever forgets the verb is told the whole command."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.proto").touch()
    assert invoke([word]) == 2
    assert capsys.readouterr().err == (
        "Usage: dynserve [OPTIONS] COMMAND [ARGS]...\nTry 'dynserve --help' for help.\n\n"
        f"Error: No such command '{word}'. Did you mean: dynserve {verb} {word}?\n"
    )


def test_main_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    """``main`` ends the process with the exit code of its words, or of the process's own."""
    monkeypatch.setattr(sys, "argv", ["dynserve", "--version"])
    for argv, code in ((None, 0), (["nope"], 2)):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == code


def test_ctrl_c_exits_as_shells_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interruption before the server runs is no stack trace, and exits with 128 + SIGINT."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dynserve.plugins.load", interrupted)
    assert invoke(["run", "x"]) == 130
    assert capsys.readouterr() == ("", "\n")


def test_a_plugins_exception_has_its_own_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plugin's frames and the chain of its exceptions are shown; dynserve's frames are not."""
    monkeypatch.chdir(tmp_path)
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from dynserve import App\n"
        "def broken():\n"
        "    try:\n"
        "        App().add(3)\n"
        "    except TypeError as error:\n"
        "        raise ValueError('no good') from error\n"
        "broken()\n"
    )
    assert invoke(["run", "plugin.py"]) == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if set(line) - set(" ^~")]  # 3.13 marks code
    assert (out, lines) == (
        "",
        [
            "Traceback (most recent call last):",
            f'  File "{plugin}", line 4, in broken',
            "    App().add(3)",
            "TypeError: got 3 as a handler, expected something that can be called",
            "The above exception was the direct cause of the following exception:",
            "Traceback (most recent call last):",
            f'  File "{plugin}", line 7, in <module>',
            "    broken()",
            f'  File "{plugin}", line 6, in broken',
            "    raise ValueError('no good') from error",
            "ValueError: no good",
            "Error: plugin.py: importing it failed: ValueError: no good",
        ],
    )


def test_a_modules_exception_has_its_own_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames of Python's import machinery are left out, those of other modules are not."""
    package = tmp_path / "shop_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("import json\njson.loads('{')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert invoke(["run", "shop_plugin:app"]) == 1
    err = capsys.readouterr().err
    files = [line.split('"')[1] for line in err.splitlines() if line.startswith("  File ")]
    own = str(package / "__init__.py")
    assert files[0] == own
    assert {os.path.basename(os.path.dirname(file)) for file in files[1:]} == {"json"}
    assert err.splitlines()[-1].startswith(
        "Error: shop_plugin:app: importing it failed: JSONDecodeError: Expecting property name"
    )


def test_a_syntax_error_is_shown_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plugin that Python cannot parse has its line shown, and no traceback before it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugin.py").write_text("x = )\n")
    assert invoke(["run", "plugin.py"]) == 1
    assert capsys.readouterr().err == (
        f'  File "{tmp_path / "plugin.py"}", line 1\n'
        "    x = )\n"
        "        ^\n"
        "SyntaxError: unmatched ')'\n"
        "Error: plugin.py: importing it failed: SyntaxError: unmatched ')' (plugin.py, line 1)\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["check", "s.proto"],
        ["run", "-p", "s.proto", "--listen", "127.0.0.1:0"],
        ["describe", "s.proto", "M"],
    ],
    ids=["help", "check", "run", "describe"],
)
def test_a_closed_pipe_is_quiet(words: list[str], tmp_path: Path) -> None:
    """When whoever read the output has gone, the command ends with 1 and no complaint."""
    (tmp_path / "s.proto").write_text('syntax = "proto3"; message M {}')
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "dynserve", *words],
            check=False,
            stdout=gone,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=30,
        )
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("-plaintext", "'-plaintext': connections are plain, unless --tls is given."),
        ("-max-time", "'-max-time': options have two dashes, --max-time."),
    ],
)
def test_options_of_grpcurl(word: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One dash is a habit of grpcurl's users; what it would be read as makes no sense to them."""
    assert invoke(["call", word, "localhost:1", "a.B/C"]) == 2
    assert capsys.readouterr() == ("", f"Error: No such option {text}\n")
