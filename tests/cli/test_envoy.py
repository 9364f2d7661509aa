"""``dynserve envoy``: write a configuration for Envoy."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from dynserve import Schema
from dynserve.cli.main import invoke
from dynserve.envoy import (
    Breakers,
    Ejection,
    Front,
    Health,
    Hooks,
    Proxy,
    Retries,
    Transcoding,
    Upstream,
    Web,
    bootstrap,
    to_json,
    to_yaml,
    transcoding,
)

SHOP = """\
syntax = "proto3";
package shop;
message Item { string name = 1; }
service Shop { rpc Get(Item) returns (Item); }
"""
PLUGIN = 'from dynserve import App\napp = App("{proto}")\n'
GROUPS = (Front, Upstream, Health, Ejection, Retries, Breakers, Hooks, Web, Transcoding)
HEAD = "Written by `dynserve envoy{sources}`; `--help` has its options."


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("shop.proto").write_text(SHOP)
    Path("empty.proto").write_text('syntax = "proto3"; message M {}')
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = invoke(["envoy", *words])
    return (code, *capsys.readouterr())


def services_in(text: str) -> list[str]:
    """The services that are transcoded in a configuration of JSON."""
    return list(transcoder_in(text)["services"])


def transcoder_in(text: str) -> Any:
    listener = json.loads(text)["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    name = "envoy.filters.http.grpc_json_transcoder"
    (found,) = (each for each in manager["http_filters"] if each["name"] == name)
    return found["typed_config"]


def test_nothing_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a word it is the default, as YAML on standard output."""
    assert said(capsys) == (0, to_yaml(bootstrap(Proxy()), HEAD.format(sources="")), "")


@pytest.mark.parametrize("name", ["envoy.conf", "envoy", "json"])
def test_a_file_that_envoy_would_not_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Envoy tells by the name what is in a file, so other names are refused."""
    error = f"-o: got {name!r}, expected a name that ends in .yaml, .yml or .json:"
    error += " Envoy goes by it"
    assert said(capsys, "-o", name) == (2, "", f"Error: {error}\n")
    assert not Path(name).exists()


def test_standard_output_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """`-o -` is what it is without."""
    assert said(capsys, "-o", "-") == said(capsys)


def test_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    """Its services are called by JSON; the file says what it was made of."""
    proxy = Proxy(transcoding=transcoding([Schema.load("shop.proto")]))
    expected = to_yaml(bootstrap(proxy), HEAD.format(sources=" shop.proto"))
    assert said(capsys, "shop.proto") == (0, expected, "")


@pytest.mark.parametrize("name", ["envoy.yaml", "deep/envoy.yml", "envoy.json"])
def test_a_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML, or JSON where the name says so; a file that is there is replaced."""
    for _ in range(2):
        assert said(capsys, "-o", name) == (0, "", "")
    config = bootstrap(Proxy())
    yaml = to_yaml(config, HEAD.format(sources=""))
    assert Path(name).read_text() == (to_json(config) if name.endswith(".json") else yaml)


EVERY_SETTING = """
    --listen 0.0.0.0:443 --tls-cert c --tls-key k --tls-client-ca a --admin [::1]:9902
    --access-log text --trusted-hops 1 --max-timeout 2 --stream-idle-timeout 3
    --client-keepalive 4 --client-streams 5 --client-connections 6 --client-connection-age 7
    --drain-timeout 8 --upstream 10.0.0.1:1 --upstream 10.0.0.2:2 --balance round-robin
    --connect-timeout 9 --dns-refresh 10 --upstream-ca ua --upstream-cert uc --upstream-key uk
    --upstream-name un --upstream-keepalive 11 --health-interval 12 --health-timeout 13
    --health-failures 14 --health-service s.S --panic-threshold 15 --eject-after 16
    --eject-time 17 --eject-percent 18 --retry-on reset --retries 19 --per-try-timeout 20
    --retry-budget 21 --retry-concurrency 22 --retry-buffer 23 --max-connections 24
    --max-pending 25 --max-requests 26 --ext-authz a:1 --ext-authz-timeout 27
    --ext-authz-fail-open --rate-limit-service b:2 --rate-limit-domain d
    --rate-limit-by path --rate-limit-by header:x-a --rate-limit-timeout 28
    --rate-limit-fail-closed --local-rate-limit 29 --local-rate-limit-burst 30
    --local-rate-limit-per-connection --no-grpc-web --cors-origin https://a.example
    --cors-header x-a --auto-mapping --json-proto-names --json-defaults shop.proto
"""


def test_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """Each option reaches its field."""
    words = EVERY_SETTING.split()
    found = transcoding(
        [Schema.load("shop.proto")], auto_mapping=True, json_proto_names=True, json_defaults=True
    )
    proxy = Proxy(
        Front("0.0.0.0:443", "c", "k", "a", "[::1]:9902", "text", 1, 2, 3, 4, 5, 6, 7, 8),
        Upstream(("10.0.0.1:1", "10.0.0.2:2"), "round-robin", 9, 10, "ua", "uc", "uk", "un", 11),
        Health(12, 13, 14, "s.S", 15),
        Retries("reset", 19, 20, 21, 22, 23),
        Breakers(24, 25, 26),
        Ejection(16, 17, 18),
        Hooks("a:1", 27, True, "b:2", "d", ("path", "header:x-a"), 28, True, 29, 30, True),
        Web(False, ("https://a.example",), ("x-a",)),
        found,
    )
    code, out, err = said(capsys, *words, "-o", "all.json")
    assert (code, out, err) == (0, "", "")
    # 2 and 2.0 are the same here, and not in the text.
    assert json.loads(Path("all.json").read_text()) == bootstrap(proxy)
    fields = {field.name for group in GROUPS for field in dataclasses.fields(group)}
    given = {word[2:].replace("-", "_") for word in words if word.startswith("--")}
    assert given - {"no_grpc_web"} == fields - {"descriptor_set", "services", "grpc_web"}


USAGE = """\
Usage: dynserve envoy [OPTIONS] [SOURCE]...

  Write a configuration with which Envoy balances calls over servers.

  A SOURCE is a .proto file, a folder, a descriptor set, package:NAME/PATH, or
  a plugin: a .py file or a folder with a plugin.py. Its services can then be
  called by plain HTTP and JSON, too, as their google.api.http options say.
  Everything that is gRPC goes through in any case.

  Envoy runs it by: envoy -c envoy.yaml

  Examples:
    dynserve envoy protos/route_guide.proto --upstream 10.0.0.1:50051 > envoy.yaml
    dynserve envoy --listen 0.0.0.0:8080 --upstream shop.default.svc:50051 > envoy.yaml

Options:
  -I, --include DIR  A root that imports are searched in, before any other and
                     in the order given.
  -o, --output FILE  Write this file: .yaml, .yml or .json, for Envoy goes by
                     that. By default, as for -, YAML on standard output.
  -h, --help         Show this message and exit.

Clients:
  --listen HOST:PORT              Where Envoy listens; [IPV6]:PORT, unix:PATH.
                                  [default: 127.0.0.1:8080]
"""


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """By what they are about: every option, and what it is by default."""
    code, out, err = said(capsys, "--help")
    assert (code, out[: len(USAGE)], err) == (0, USAGE, "")
    assert re.findall(r"^(\w[\w ]*):$", out, re.MULTILINE) == [
        "Options",
        "Clients",
        "Servers",
        "Health",
        "Retries and limits",
        "Hooks",
        "Browsers and JSON",
    ]
    shown = set(re.findall(r"^  --([a-z-]+)", out, re.MULTILINE))
    fields = {field.name for group in GROUPS for field in dataclasses.fields(group)}
    assert shown == {name.replace("_", "-") for name in fields - {"descriptor_set", "services"}}


# ---- sources


def test_plugins(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file, a folder with a plugin.py, and what has other sources beside them."""
    for name in ("one", "two", "three"):
        (folder / name).mkdir()
        text = SHOP.replace("shop", name)
        (folder / name / f"{name}.proto").write_text(text)
    (folder / "one" / "serve.py").write_text(PLUGIN.format(proto="one.proto"))
    (folder / "two" / "plugin.py").write_text(PLUGIN.format(proto="two.proto"))
    assert said(capsys, "one/serve.py", "two", "three", "-o", "a.json") == (0, "", "")
    assert services_in(Path("a.json").read_text()) == ["one.Shop", "two.Shop", "three.Shop"]


def test_a_descriptor_set(capsys: pytest.CaptureFixture[str]) -> None:
    """What was compiled elsewhere will do, and nothing else gets into the configuration."""
    first = said(capsys, "shop.proto", "-o", "a.json")
    data = base64.b64decode(transcoder_in(Path("a.json").read_text())["proto_descriptor_bin"])
    Path("shop.binpb").write_bytes(data)
    assert said(capsys, "shop.binpb", "-o", "b.json") == first == (0, "", "")
    again = base64.b64decode(transcoder_in(Path("b.json").read_text())["proto_descriptor_bin"])
    names = [[file.name for file in FileDescriptorSet.FromString(x).file] for x in (data, again)]
    assert sorted(names[0]) == sorted(names[1])
    assert services_in(Path("b.json").read_text()) == ["shop.Shop"]


def test_include(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Imports are searched where it is said."""
    (folder / "root").mkdir()
    (folder / "root" / "item.proto").write_text('syntax = "proto3"; message Item {}')
    text = 'syntax = "proto3"; import "item.proto"; service S { rpc Do(Item) returns (Item); }'
    Path("s.proto").write_text(text)
    assert said(capsys, "s.proto", "-I", "root", "-I", ".", "-o", "a.json") == (0, "", "")
    assert services_in(Path("a.json").read_text()) == ["S"]


# ---- what is refused


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["--listen", "8080"],
            "--listen: got '8080', expected HOST:PORT, [IPV6]:PORT or unix:PATH;"
            " did you mean 127.0.0.1:8080?",
        ),
        (["--tls-cert", "cert.pem"], "--tls-cert: needs --tls-key, too"),
        (
            ["--upstream", "10.0.0.1"],
            "--upstream: got '10.0.0.1', expected HOST:PORT, [IPV6]:PORT or unix:PATH",
        ),
        (
            ["--upstream-ca", "ca.pem"],
            "--upstream-ca: which name do the servers' certificates carry?"
            " give --upstream-name NAME, too",
        ),
        (
            ["--auto-mapping"],
            "--auto-mapping: is for JSON; name a SOURCE that has the services",
        ),
        (
            ["--json-defaults"],
            "--json-defaults: is for JSON; name a SOURCE that has the services",
        ),
        (["empty.proto"], "empty.proto: has no service; name a source that has one"),
        (["none.proto"], "none.proto: no such file or folder (looked in FOLDER)"),
        (["none.py"], "none.py: no such file or folder"),
    ],
)
def test_what_does_not_fit(
    words: list[str], error: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the option and says what to write; no file is made."""
    code, out, err = said(capsys, *words, "-o", "envoy.yaml")
    assert (code, out) == (2, "")
    assert err == f"Error: {error}\n".replace("FOLDER", str(folder))
    assert not Path("envoy.yaml").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["--health-interval", "0"],
            "Invalid value for '--health-interval': 0.0 is not in the range x>=0.001.",
        ),
        (["--retries", "-1"], "Invalid value for '--retries': -1 is not in the range x>=0."),
        (
            ["--panic-threshold", "101"],
            "Invalid value for '--panic-threshold': 101.0 is not in the range 0<=x<=100.",
        ),
        (
            ["--balance", "random"],
            "Invalid value for '--balance': 'random' is not one of 'least-request', 'round-robin'.",
        ),
    ],
)
def test_what_is_out_of_range(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers have bounds, and choices are told."""
    code, out, err = said(capsys, *words)
    usage = "Usage: dynserve envoy [OPTIONS] [SOURCE]...\nTry 'dynserve envoy --help' for help.\n\n"
    assert (code, out, err) == (2, "", f"{usage}Error: {error}\n")


def test_a_source_with_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """Every diagnostic is told, as `dynserve check` has it."""
    Path("bad.proto").write_text('syntax = "proto3"; message M { Nope a = 1; }')
    code, out, err = said(capsys, "bad.proto")
    assert (code, out) == (1, "")
    assert err == (
        'bad.proto:1:32: "Nope" is not defined.\n'
        '  1 | syntax = "proto3"; message M { Nope a = 1; }\n'
        "    |                                ^\n"
    )


def test_an_open_administration(capsys: pytest.CaptureFixture[str]) -> None:
    """It is written as asked, with a warning."""
    code, out, err = said(capsys, "--admin", "0.0.0.0:9901")
    expected = to_yaml(bootstrap(Proxy(front=Front(admin="0.0.0.0:9901"))), HEAD.format(sources=""))
    assert (code, out) == (0, expected)
    assert err == (
        "Warning: --admin 0.0.0.0:9901: who reaches it can stop Envoy; 127.0.0.1 is safe\n"
    )


def test_a_source_that_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The first line stays one line, whatever the source is."""
    code, out, _ = said(capsys, SHOP)
    assert (code, out.splitlines()[0]) == (0, "# " + HEAD.format(sources=" TEXT"))
