"""dynserve.schema.pool: nothing is built before it is asked for."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from dynserve import Schema
from dynserve.schema.descriptors import message_class

from .conftest import Tree

P2, P3 = 'syntax = "proto2";\n', 'syntax = "proto3";\n'


def built(schema: Schema) -> set[str]:
    """The files that the schema's pool holds."""
    pool: Any = schema._pool._pool
    found = set()
    for name in schema.index.files:
        try:
            found.add(pool.FindFileByName(name).name)
        except KeyError:
            continue
    return found


def large_set(count: int) -> bytes:
    """A set of many files: ten messages of ten fields and a service each, in chains of imports."""
    files = []
    for number in range(count):
        package = f"pkg{number}"
        messages = [
            DescriptorProto(
                name=f"Message{n}",
                field=[
                    FieldDescriptorProto(
                        name=f"field_number_{f}", number=f, type=FieldDescriptorProto.TYPE_STRING
                    )
                    for f in range(1, 11)
                ],
            )
            for n in range(10)
        ]
        kind = f".{package}.Message0"
        method = MethodDescriptorProto(name="Get", input_type=kind, output_type=kind)
        files.append(
            FileDescriptorProto(
                name=f"{package}.proto",
                package=package,
                syntax="proto3",
                dependency=[f"pkg{number - 1}.proto"] if number % 10 else [],
                message_type=messages,
                service=[ServiceDescriptorProto(name="S", method=[method])],
            )
        )
    return FileDescriptorSet(file=files).SerializeToString()


def test_only_what_is_asked_for_is_built(tree: Tree) -> None:
    """Loading builds nothing; a message, a service or an enum builds its file and its imports."""
    tree(
        {
            "base.proto": P3 + "package base; message Base {} enum E { ZERO = 0; }",
            "one.proto": P3 + 'package one; import "base.proto"; message One { base.Base b = 1; }',
            "two.proto": P3 + "package two; message Two {}\n"
            "service S { rpc Get(Two) returns (Two); }",
        }
    )
    schema = Schema.load(".")
    assert schema.services == ("two.S",)
    assert list(schema.method_kinds("two.S")) == ["Get"]
    assert built(schema) == set()
    schema.enum("base.E")
    assert built(schema) == {"base.proto"}
    schema.message("one.One")
    assert built(schema) == {"base.proto", "one.proto"}
    schema.service("two.S")
    assert built(schema) == {"base.proto", "one.proto", "two.proto"}


def test_a_schema_can_be_built_at_once(tree: Tree) -> None:
    """``build`` leaves nothing to be lazy, whatever the files are called."""
    tree({"a.proto": P3 + 'import "ü.proto";', "ü.proto": P3 + "message M {}"})
    schema = Schema.load(".")
    schema.build()
    assert "a.proto" in built(schema)
    assert schema._pool._built == {"a.proto", "ü.proto"}


MEASURE = """
import sys, time
from google.protobuf import descriptor_pool, message_factory  # not what is measured
from dynserve import Schema

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

before, began = memory(), time.perf_counter()
schema = Schema.load(sys.argv[1])
method = schema.method("pkg2999.S/Get")
opened = time.perf_counter() - began
print(len(schema.services), method.request.DESCRIPTOR.full_name, opened, memory() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_set_of_3000_files_opens_lazily(tmp_path: Path) -> None:
    """3,000 files with 30,000 messages open in well under a second, and in less than 40 MB."""
    path = tmp_path / "large.binpb"
    path.write_bytes(large_set(3000))
    child = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"COVERAGE_PROCESS_CONFIG": ""},  # what is measured is the package alone
    )
    services, message, seconds, grown = child.stdout.split()
    assert (services, message) == ("3000", "pkg2999.Message0")
    assert float(seconds) < 2  # 0.2 on an idle machine
    assert int(grown) < 40 << 20


def test_two_schemas_clash_in_nothing(tree: Tree) -> None:
    """Files, packages and types of one name are different things in two schemas."""
    folder = tree(
        {
            "one/a.proto": P3 + "package p; message M { int32 x = 1; }",
            "two/a.proto": P3 + "package p; message M { string y = 1; } message p {}",
        }
    )
    one, two = Schema.load(folder / "one"), Schema.load(folder / "two")
    assert one.message("p.M")(x=1).SerializeToString() == b"\x08\x01"
    assert two.message("p.M")(y="a").SerializeToString() == b"\x0a\x01a"
    assert one.message("p.M") is one.message("p.M") is not two.message("p.M")


def test_a_schema_leaves_the_process_as_it_was() -> None:
    """Nothing that a schema loads is known to protobuf's default pool."""
    from google.protobuf import descriptor_pool

    schema = Schema.load(P3 + "package private_to_this_test; message M {}")
    schema.build()
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("private_to_this_test.M")


EXTENDED = {
    "base.proto": P2 + "package b; message Base { optional int32 n = 1; extensions 100 to 200; }\n"
    "message Holder { map<string, Base> bases = 1; optional Holder inner = 2; }\n"
    "service S { rpc Get(Holder) returns (Base); }",
    "ext.proto": P2 + 'package e; import "base.proto"; import "more.proto";\n'
    "extend b.Base { optional int32 x = 100; optional m.More more = 101; }",
    "more.proto": P2 + "package m; message More { extensions 100; }",
    "deep.proto": P2 + 'package d; import "more.proto";\n'
    "extend m.More { optional string deep = 100; }",
}


def extended(folder: Path) -> Any:
    """A message with extensions, as another schema of the same files makes it."""
    schema = Schema.load(folder)
    base = schema.message("b.Base")()
    base.Extensions[schema.extension("e.x")] = 7
    more = base.Extensions[schema.extension("e.more")]
    more.Extensions[schema.extension("d.deep")] = "found"
    return base


JSON = '{\n  "[e.x]": 7,\n  "[e.more]": {\n    "[d.deep]": "found"\n  }\n}'


def test_extensions_are_parsed_though_nobody_asked_for_their_file(tree: Tree) -> None:
    """A message is parsed with every extension that its schema has, those of extensions too."""
    folder = tree(EXTENDED)
    data = extended(folder).SerializeToString()
    schema = Schema.load(folder)
    assert schema.to_json(schema.message("b.Base").FromString(data)) == JSON


def test_extensions_of_what_a_method_takes(tree: Tree) -> None:
    """The messages of a method, and all that they can hold, know their extensions."""
    folder = tree(EXTENDED)
    base = extended(folder)
    data = b"\x0a" + bytes([len(base.SerializeToString()) + 2 + 3])
    data += b"\x0a\x01k\x12" + bytes([len(base.SerializeToString())]) + base.SerializeToString()
    schema = Schema.load(folder)
    holder: Any = schema.method("b.S/Get").request.FromString(data)
    assert schema.to_json(holder.bases["k"]) == JSON
    assert schema.to_json(schema.method("b.S/Get").response.FromString(base.SerializeToString()))


def test_extensions_of_what_an_any_holds(tree: Tree) -> None:
    """The content of an Any is read with its extensions, though its type was never asked for."""
    folder = tree(EXTENDED | {"any.proto": P3 + 'import "google/protobuf/any.proto";'})
    base = extended(folder)
    schema = Schema.load(folder)
    holder: Any = schema.message("google.protobuf.Any")
    packed = holder(type_url="x/b.Base", value=base.SerializeToString())
    assert schema.to_dict(packed) == {
        "@type": "x/b.Base",
        "[e.x]": 7,
        "[e.more]": {"[d.deep]": "found"},
    }


def test_classes_are_never_garbage(tree: Tree) -> None:
    """The classes of all that a message can hold live as long as the schema.

    protobuf keeps them weakly: one that the garbage collector has begun to take is given to a
    thread that asks meanwhile, and crashes the process.
    """
    folder = tree(EXTENDED)
    data = extended(folder).SerializeToString()
    schema = Schema.load(folder)

    def classes() -> list[weakref.ref[type]]:
        base: Any = schema.message("b.Base").FromString(data)
        more = base.Extensions[schema.extension("e.more")]
        holder: Any = schema.message("b.Holder")(inner={"bases": {"k": {}}})
        file: Any = message_class("FileDescriptorSet")()
        messages = [base, more, holder.inner, holder.inner.bases["k"]]
        messages += [file.file.add(), file.file.add().source_code_info.location.add()]
        return [weakref.ref(type(message)) for message in messages]

    found = classes()
    gc.collect()
    assert [ref() for ref in found] == [ref() for ref in classes()]
    assert None not in [ref() for ref in found]


def test_a_class_outlives_its_schema_whole() -> None:
    """A class keeps the classes of what it can hold, and all of them go when none is used."""
    text = P3 + "package p; message M { N n = 1; } message N { N n = 1; }"
    message: Any = Schema.load(text).message("p.M")
    inner = weakref.ref(type(message().n))
    gc.collect()
    assert inner() is type(message().n)
    del message
    gc.collect()
    assert inner() is None


def test_many_threads_ask_at_once() -> None:
    """Threads that ask one schema for the same and for different things all get the same things."""
    data = large_set(200)
    for _ in range(5):
        schema = Schema.load(data)
        barrier = threading.Barrier(16)

        def ask(
            number: int, schema: Schema = schema, barrier: threading.Barrier = barrier
        ) -> list[object]:
            barrier.wait(timeout=30)
            found: list[object] = []
            for step in range(40):
                package = f"pkg{(number * step) % 200}"
                made = schema.message(f"{package}.Message{step % 10}")
                again = made.FromString(made(field_number_1="x").SerializeToString())
                assert again == made(field_number_1="x")
                found += [made, schema.service("pkg7.S"), schema.message("pkg199.Message9")]
            return [*found[1::3], *found[2::3]]

        with ThreadPoolExecutor(16) as pool:
            results = list(pool.map(ask, range(16)))
        assert {id(item) for result in results for item in result} == {
            id(schema.service("pkg7.S")),
            id(schema.message("pkg199.Message9")),
        }
