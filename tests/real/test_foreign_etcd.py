"""The client against etcd, which does not reflect: its own .proto files say what it serves."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pytest

from dynserve import ReflectionError
from tests.real.callers import Also, Caller, Outcome, Printed, Send, SyncCaller, command
from tests.real.conftest import Connect, Start

pytestmark = pytest.mark.real

KV = "etcdserverpb.KV"
LEASE = "etcdserverpb.Lease"
RPC = "etcd/api/etcdserverpb/rpc.proto"


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes an etcd a cluster of its own; it cannot be told to choose the ports itself."""
    with contextlib.ExitStack() as sockets:
        ports = [
            sockets.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for _ in range(2)
        ]
    client, peer = (f"http://127.0.0.1:{port}" for port in ports)
    return [
        f"--data-dir={tmp_path_factory.mktemp('etcd')}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


@pytest.fixture
def address(tool: Callable[[str], str], start: Start, options: list[str]) -> str:
    """The address of an etcd."""
    return start(tool("etcd"), *options)


@pytest.fixture
def protos(folder: Callable[[str, str], Path]) -> Path:
    """The root of etcd's .proto files, and of what they import."""
    return folder("PROTOS_OF_ETCD", RPC)


@pytest.fixture
def etcd(connect: Connect, address: str, protos: Path) -> Caller:
    """The client, told of the .proto files."""
    return connect(address, protos / RPC, include=[protos])


Header = Callable[[int], dict[str, str]]


@pytest.fixture
def header(address: str, protos: Path) -> Header:
    """``header(n)``: what each response begins with, after n changes more."""
    caller = SyncCaller(address, protos / RPC, include=[protos])
    now = caller.call(f"{KV}/Range", key=b"none").responses[0]["header"]
    return lambda changes: {**now, "revision": str(int(now["revision"]) + changes)}


def test_no_reflection(connect: Connect, address: str) -> None:
    """A server without reflection is said to have none, with what to do."""
    with pytest.raises(ReflectionError) as caught:
        connect(address).call(f"{KV}/Range", key=b"a")
    assert str(caught.value) == f"{address}: serves no reflection; name the .proto files, too"


def test_services(etcd: Caller) -> None:
    """The services are those that the files declare."""
    assert etcd.services() == (
        "etcdserverpb.Auth",
        "etcdserverpb.Cluster",
        "etcdserverpb.KV",
        "etcdserverpb.Lease",
        "etcdserverpb.Maintenance",
        "etcdserverpb.Watch",
    )


def test_keys(etcd: Caller, header: Header) -> None:
    """A key is put, put again, found in a range and deleted."""
    put = etcd.call(f"{KV}/Put", key=b"keys/a", value=b"1")
    assert put == Outcome([{"header": header(1)}])
    created = header(1)["revision"]
    old = {
        "key": "a2V5cy9h",
        "createRevision": created,
        "modRevision": created,
        "version": "1",
        "value": "MQ==",
    }
    put = etcd.call(f"{KV}/Put", {"key": b"keys/a", "value": b"2", "prev_kv": True})
    assert put == Outcome([{"header": header(2), "prevKv": old}])
    etcd.call(f"{KV}/Put", key=b"keys/b", value=b"3")
    a = {**old, "modRevision": header(2)["revision"], "version": "2", "value": "Mg=="}
    revision = header(3)["revision"]
    b = {
        "key": "a2V5cy9i",
        "createRevision": revision,
        "modRevision": revision,
        "version": "1",
        "value": "Mw==",
    }
    keys = {"key": b"keys/", "range_end": b"keys0"}
    found = etcd.call(f"{KV}/Range", keys, timeout=20)
    assert found == Outcome([{"header": header(3), "kvs": [a, b], "count": "2"}])
    newest = {**keys, "limit": 1, "sort_order": "DESCEND", "sort_target": "KEY"}
    found = etcd.call(f"{KV}/Range", newest)
    assert found == Outcome([{"header": header(3), "kvs": [b], "more": True, "count": "2"}])
    deleted = etcd.call(f"{KV}/DeleteRange", **keys, prev_kv=True)
    assert deleted == Outcome([{"header": header(4), "deleted": "2", "prevKvs": [a, b]}])


def test_transaction(etcd: Caller, header: Header) -> None:
    """What is in a oneof is sent and received: comparisons, requests and their responses."""
    key = b"transaction/" + type(etcd).__name__.encode()
    request = {
        "compare": [{"key": key, "target": "VERSION", "result": "EQUAL", "version": 0}],
        "success": [{"request_put": {"key": key, "value": b"first"}}],
        "failure": [
            {"request_range": {"key": key, "count_only": True}},
            {"request_delete_range": {"key": key}},
        ],
    }
    put = {"responsePut": {"header": {"revision": header(1)["revision"]}}}
    assert etcd.call(f"{KV}/Txn", request) == Outcome(
        [{"header": header(1), "succeeded": True, "responses": [put]}]
    )
    before, after = ({"header": {"revision": header(n)["revision"]}} for n in (1, 2))
    counted = {"responseRange": {**before, "count": "1"}}
    deleted = {"responseDeleteRange": {**after, "deleted": "1"}}
    assert etcd.call(f"{KV}/Txn", request) == Outcome(
        [{"header": header(2), "responses": [counted, deleted]}]
    )


def test_watch(etcd: Caller, header: Header) -> None:
    """A watch tells of what other calls on the same connection do, until it is cancelled."""
    outcome = etcd.converse(
        "etcdserverpb.Watch/Watch",
        Send({"create_request": {"key": b"watch", "watch_id": 7, "prev_kv": True}}),
        Also(f"{KV}/Put", {"key": b"watch", "value": b"1"}),
        Also(f"{KV}/DeleteRange", {"key": b"watch"}),
        Send({"cancel_request": {"watch_id": 7}}),
        cancel=True,
    )
    created = header(1)["revision"]
    put = {
        "key": "d2F0Y2g=",
        "createRevision": created,
        "modRevision": created,
        "version": "1",
        "value": "MQ==",
    }
    deleted = {"key": "d2F0Y2g=", "modRevision": header(2)["revision"]}
    assert outcome == Outcome(
        [
            {"header": header(0), "watchId": "7", "created": True},
            {"header": header(1), "watchId": "7", "events": [{"kv": put}]},
            {
                "header": header(2),
                "watchId": "7",
                "events": [{"type": "DELETE", "kv": deleted, "prevKv": put}],
            },
            {"header": header(2), "watchId": "7", "canceled": True},
        ],
        "CANCELLED",
    )


def test_lease(etcd: Caller, header: Header) -> None:
    """A lease is granted, kept alive on a stream, told and revoked; fields may be upper-case."""
    number = 1234567890123456789
    shown = {"ID": str(number)}
    granted = etcd.call(f"{LEASE}/LeaseGrant", TTL=100, ID=number)
    assert granted == Outcome([{"header": header(0), **shown, "TTL": "100"}])
    etcd.call(f"{KV}/Put", key=b"lease", lease=number)
    kept = etcd.converse(f"{LEASE}/LeaseKeepAlive", Send({"ID": number}), Send({"ID": number}))
    assert kept == Outcome([{"header": header(1), **shown, "TTL": "100"}] * 2)
    told = etcd.call(f"{LEASE}/LeaseTimeToLive", ID=number, keys=True)
    rest = told.responses[0].pop("TTL")
    assert 0 < int(rest) <= 100
    assert told == Outcome(
        [{"header": header(1), **shown, "grantedTTL": "100", "keys": ["bGVhc2U="]}]
    )
    revoked = etcd.call(f"{LEASE}/LeaseRevoke", ID=number)
    assert revoked == Outcome([{"header": header(2)}])


def test_snapshot(etcd: Caller) -> None:
    """A stream of responses is complete: the last bytes are the digest of all others."""
    outcome = etcd.call("etcdserverpb.Maintenance/Snapshot")
    data = b"".join(b64decode(response["blob"]) for response in outcome.responses)
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    assert (outcome.code, len(data) > 512) == ("OK", True)


@pytest.mark.parametrize(
    ("method", "sent", "code", "text"),
    [
        (f"{KV}/Put", {}, "INVALID_ARGUMENT", "etcdserver: key is not provided"),
        (
            f"{KV}/Put",
            {"key": b"a", "lease": 5},
            "NOT_FOUND",
            "etcdserver: requested lease not found",
        ),
        (
            f"{KV}/Range",
            {"key": b"a", "revision": 2**62},
            "OUT_OF_RANGE",
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ],
)
def test_error(etcd: Caller, method: str, sent: object, code: str, text: str) -> None:
    """What etcd refuses is told with its code and its words."""
    assert etcd.call(method, sent) == Outcome(code=code, text=text)


def test_commands_without_reflection(address: str) -> None:
    """What needs the server's reflection says that there is none, and what to do."""
    refusal = f"Error: {address}: serves no reflection; name its .proto files with --proto\n"
    for words in (["list", address], ["describe", address], ["call", address, f"{KV}/Range"]):
        assert command(*words) == Printed(1, "", refusal)


def test_commands(address: str, protos: Path, header: Header) -> None:
    """The commands take the .proto files in place of reflection, and call with them."""
    sources = ["--proto", protos / RPC, "-I", protos]
    assert command("list", address, "etcdserverpb.Watch", *sources) == Printed(
        0, "etcdserverpb.Watch/Watch\n", ""
    )
    assert command("describe", address, "mvccpb.Event.EventType", *sources) == Printed(
        0, "enum EventType {\n  PUT = 0;\n  DELETE = 1;\n}\n", ""
    )
    put = command("call", address, f"{KV}/Put", "-d", '{"key": "YQ=="}', *sources)
    line = ", ".join(f'"{name}": "{value}"' for name, value in header(1).items())
    assert put == Printed(0, f'{{"header": {{{line}}}}}\n', "")
    put = command("call", address, f"{KV}/Put", *sources)
    text = "etcdserver: key is not provided"
    assert put == Printed(64 + 3, "", f"Error: INVALID_ARGUMENT: {text}\n")


def test_export_command(address: str, protos: Path, tmp_path: Path) -> None:
    """The files are exported as one descriptor set, by which the server is called."""
    path = tmp_path / "etcd.binpb"
    printed = command("export", address, "--proto", protos / RPC, "-I", protos, "--output", path)
    assert printed.code == 0
    listed = command("list", path, LEASE)
    names = ("Grant", "Revoke", "KeepAlive", "TimeToLive", "Leases")
    assert listed == Printed(0, "".join(f"{LEASE}/Lease{name}\n" for name in names), "")
    outcome = SyncCaller(address, path).call(f"{KV}/Range", key=b"none", count_only=True)
    assert [list(response) for response in outcome.responses] == [["header"]]
