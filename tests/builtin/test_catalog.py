"""What clients are told of several schemas at once."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pb2 import FileDescriptorSet as FileSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from dynserve import Schema
from dynserve.binding import Unit, bind
from dynserve.builtin.catalog import Catalog

STRING = FieldDescriptorProto.TYPE_STRING
MESSAGE = FieldDescriptorProto.TYPE_MESSAGE


def catalog_of(*schemas: Schema) -> Catalog:
    """The catalog of a server that serves these schemas and nothing else."""
    return Catalog(bind([Unit(schema, []) for schema in schemas]))


def text(catalog: Catalog, symbol: str) -> list[str]:
    """The names of the files that come with a symbol."""
    file = catalog.file_of(symbol)
    assert file is not None
    return [FileDescriptorProto.FromString(data).name for data in catalog.bundle(file, set())]


@dataclass(frozen=True)
class _Tree:
    """Files 0 to 3: the versions of those that it has, and which of the lower ones they import."""

    versions: dict[int, int]
    imports: tuple[tuple[int, ...], ...]

    def as_set(self, service: str) -> FileSet:
        """The files, each with a message that has a field for each import, and one service."""
        result = FileSet()
        for number, version in sorted(self.versions.items()):
            file = result.file.add(name=f"f{number}.proto", package=f"p{number}", syntax="proto3")
            message = file.message_type.add(name="M")
            message.field.add(name=f"version_{version}", number=1, type=STRING, label=1)
            for other in self.imports[number]:
                if other in self.versions:
                    file.dependency.append(f"f{other}.proto")
                    field = message.field.add(name=f"f{other}", number=other + 2, label=1)
                    field.type, field.type_name = MESSAGE, f".p{other}.M"
        last = max(self.versions)
        file = result.file.add(name=f"{service}.proto", package=service, syntax="proto3")
        file.dependency.append(f"f{last}.proto")
        type_name = f".p{last}.M"
        file.service.add(name="S").method.add(
            name="Do", input_type=type_name, output_type=type_name
        )
        return result


def _trees(imports: tuple[tuple[int, ...], ...]) -> st.SearchStrategy[list[_Tree]]:
    versions = st.dictionaries(st.integers(0, 3), st.integers(0, 1), min_size=1)
    return st.lists(st.builds(_Tree, versions, st.just(imports)), min_size=2, max_size=3)


_IMPORTS = st.tuples(
    *(
        st.lists(st.integers(0, n - 1), unique=True).map(tuple) if n else st.just(())
        for n in range(4)
    )
)


def _shape(pool: DescriptorPool, service: str) -> dict[str, list[str]]:
    """The fields of all messages that the service can reach."""
    found: dict[str, list[str]] = {}
    todo = [pool.FindServiceByName(f"{service}.S").methods_by_name["Do"].input_type]
    for message in todo:
        found[message.full_name] = [field.name for field in message.fields]
        todo += [field.message_type for field in message.fields if field.message_type]
    return found


@settings(max_examples=100, deadline=None)
@given(_IMPORTS.flatmap(_trees))
def test_every_client_gets_files_that_fit_together(trees: list[_Tree]) -> None:
    """However schemas clash, what comes with a service builds, and is what its schema has."""
    services = [f"s{number}" for number in range(len(trees))]
    sets = [tree.as_set(service) for tree, service in zip(trees, services, strict=True)]
    catalog = catalog_of(*(Schema.load(one) for one in sets))
    for one, service in zip(sets, services, strict=True):
        own = DescriptorPool()
        for file in one.file:
            own.AddSerializedFile(file.SerializeToString())
        told = DescriptorPool()
        start = catalog.file_of(f"{service}.S")
        assert start is not None
        for data in reversed(_in_order(catalog, start.name)):
            told.AddSerializedFile(data)
        assert _shape(told, service) == _shape(own, service)


def _in_order(catalog: Catalog, name: str) -> list[bytes]:
    """A file and what it imports, by name only, as a client asks for them; imports last."""
    order: dict[str, bytes] = {}
    todo = [name]
    for one in todo:
        file = catalog.file(one)
        assert file is not None
        order.pop(one, None)  # what is imported again goes further back
        order[one] = file.data
        assert FileDescriptorProto.FromString(file.data).name == one
        todo += FileDescriptorProto.FromString(file.data).dependency
    return list(order.values())


def test_what_is_alone_keeps_its_bytes() -> None:
    """A file whose name no other schema has, and which imports nothing renamed, is not touched."""
    first = FileSet(file=[FileDescriptorProto(name="a.proto", package="a")])
    first.file[0].service.add(name="S")
    second = FileSet(file=[FileDescriptorProto(name="b.proto", package="b")])
    second.file[0].service.add(name="S")
    catalog = catalog_of(Schema.load(first), Schema.load(second))
    for one in (first, second):
        file = catalog.file(one.file[0].name)
        assert file is not None
        assert file.data == one.file[0].SerializeToString()


def _tree(common: str, package: str) -> Schema:
    """x.proto imports common.proto, and the service's file imports x.proto."""
    result = FileSet()
    result.file.add(name="common.proto", package="common").message_type.add(name=common)
    result.file.add(name="x.proto", package="x", dependency=["common.proto"])
    file = result.file.add(name=f"{package}.proto", package=package, dependency=["x.proto"])
    file.service.add(name="S")
    return Schema.load(result)


def test_what_imports_a_renamed_file_is_another_file_too() -> None:
    """A file that is the same in both, but for what it imports, is renamed; its importer is not."""
    catalog = catalog_of(_tree("A", "one"), _tree("B", "two"))
    assert text(catalog, "one.S") == ["one.proto", "x.proto", "common.proto"]
    assert text(catalog, "two.S") == [
        "two.proto",
        "schema_2/x.proto",
        "schema_2/common.proto",
    ]


def test_each_schema_has_names_of_its_own() -> None:
    """Of a third version of a file there is a third name."""
    catalog = catalog_of(_tree("A", "one"), _tree("B", "two"), _tree("C", "three"))
    assert text(catalog, "three.S") == ["three.proto", "schema_2/x.proto", "schema_2/common.proto"]
    assert text(catalog, "two.S") == ["two.proto", "schema_3/x.proto", "schema_3/common.proto"]


def test_a_file_that_is_sent_with_other_imports_is_not_what_others_have() -> None:
    """Of equal files the one that is sent with a renamed import is good for its own schema only."""
    one = FileSet()
    one.file.add(name="common.proto", package="common").message_type.add(name="A")
    one.file.add(name="a.proto", package="a", dependency=["common.proto"]).service.add(name="S")
    catalog = catalog_of(Schema.load(one), _tree("B", "b"), _tree("A", "c"))
    assert text(catalog, "b.S") == ["b.proto", "x.proto", "schema_2/common.proto"]
    assert text(catalog, "c.S") == ["c.proto", "schema_2/x.proto", "common.proto"]


def test_a_name_that_is_taken_is_not_given_again() -> None:
    """A schema that has a file of the name which would be given keeps both."""
    one = FileSet()
    one.file.add(name="common.proto", package="common").message_type.add(name="A")
    one.file.add(name="one.proto", package="one").service.add(name="S")
    two = FileSet()
    two.file.add(name="common.proto", package="common").message_type.add(name="B")
    two.file.add(name="schema_2/common.proto", package="mine").message_type.add(name="C")
    two.file.add(
        name="two.proto", package="two", dependency=["common.proto", "schema_2/common.proto"]
    ).service.add(name="S")
    catalog = catalog_of(Schema.load(one), Schema.load(two))
    assert text(catalog, "two.S") == [
        "two.proto",
        "schema_3/common.proto",
        "schema_2/common.proto",
    ]


def test_custom_options_of_a_renamed_file_are_kept() -> None:
    """Renaming a file changes its name and its imports, and not a byte of its options."""
    options = {
        "common": b"\x8a\xb5\x18\x03abc\x90\xb5\x18\x05\x8a\xb5\x18\x01z",
        "s": b"\x98\xb5\x18\x01",
    }
    one = _tree("A", "one")
    two = FileSet()
    common = two.file.add(name="common.proto", package="common")
    common.message_type.add(name="B").options.MergeFromString(options["common"])
    file = two.file.add(name="two.proto", package="two", dependency=["common.proto"])
    file.service.add(name="S").options.MergeFromString(options["s"])
    catalog = catalog_of(one, Schema.load(two))
    main = catalog.file_of("two.S")
    assert main is not None
    sent, imported = catalog.bundle(main, set())
    assert options["s"] in sent
    assert options["common"] in imported


def test_comments_do_not_make_a_file_another() -> None:
    """The same file, compiled with and without comments, is one file."""
    one, two = FileSet(), FileSet()
    for tree, package in ((one, "one"), (two, "two")):
        tree.file.add(name="common.proto", package="common").message_type.add(name="A")
        tree.file.add(
            name=f"{package}.proto", package=package, dependency=["common.proto"]
        ).service.add(name="S")
    two.file[0].source_code_info.location.add(path=[4, 0], span=[0, 0, 0]).leading_comments = "!"
    catalog = catalog_of(Schema.load(one), Schema.load(two))
    assert text(catalog, "two.S") == ["two.proto", "common.proto"]


def test_generated_modules_and_sources_have_files_in_common() -> None:
    """A file of a generated module, which has no JSON names, is the one that protoc compiles."""
    generated = Schema.load(error_details_pb2)
    sources = Schema.load(
        """syntax = "proto3"; package two; import "google/rpc/error_details.proto";
        service S { rpc Do(google.rpc.ErrorInfo) returns (google.rpc.ErrorInfo); }"""
    )
    served = FileSet()
    for name in generated.index.files:
        served.file.append(FileDescriptorProto.FromString(generated.index.raw(name)))
    served.file.add(
        name="one.proto", package="one", dependency=["google/rpc/error_details.proto"]
    ).service.add(name="S")
    catalog = catalog_of(Schema.load(served), sources)
    assert text(catalog, "two.S")[1:] == [
        "google/rpc/error_details.proto",
        "google/protobuf/duration.proto",
    ]


def test_well_known_files_are_never_renamed() -> None:
    """Of two versions of protobuf's own files, every client gets the later."""

    def tree(package: str, *names: str) -> FileSet:
        result = FileSet()
        known = result.file.add(name="google/protobuf/empty.proto", package="google.protobuf")
        for name in names:
            known.message_type.add(name=name)
        result.file.add(
            name=f"{package}.proto", package=package, dependency=[known.name]
        ).service.add(name="S")
        return result

    for old, new in (("a", "b"), ("b", "a")):  # schemas come in the order of their services
        later = tree(new, "Empty", "Emptier")
        catalog = catalog_of(Schema.load(tree(old, "Empty")), Schema.load(later))
        file = catalog.file("google/protobuf/empty.proto")
        assert file is not None
        assert file.data == later.file[0].SerializeToString()
        for package in (old, new):
            expected = [f"{package}.proto", "google/protobuf/empty.proto"]
            assert text(catalog, f"{package}.S") == expected


def test_a_symbol_is_looked_up_where_it_is_served() -> None:
    """A service that another schema only imports comes from the schema that serves it."""
    imported = FileSet()
    imported.file.add(name="api.proto", package="api").service.add(name="S").method.add(
        name="Old", input_type=".api.M", output_type=".api.M"
    )
    imported.file[0].message_type.add(name="M")
    imported.file.add(name="a.proto", package="a").service.add(name="First")
    old = Schema(Schema.load(imported).index, declared=["a.proto"])
    imported.file[0].service[0].method[0].name = "New"
    new = Schema.load(FileSet(file=[imported.file[0]]))
    catalog = catalog_of(old, new)
    for symbol in ("api.S", "api.S.New"):
        file = catalog.file_of(symbol)
        assert file is not None
        assert b"New" in file.data
    elsewhere = catalog.file_of("api.S.Old")
    assert elsewhere is not None
    assert b"Old" in elsewhere.data


def test_extensions_of_all_schemas() -> None:
    """The extensions of a type are those that any of the schemas has."""
    texts = [
        f"""syntax = "proto2"; package {word}; import "google/protobuf/descriptor.proto";
        extend google.protobuf.FileOptions {{ optional string note = {number}; }}
        message M {{}} service S {{ rpc Do(M) returns (M); }}"""
        for word, number in (("one", 50002), ("two", 50001))
    ]
    catalog = catalog_of(*map(Schema.load, texts))
    assert catalog.extension_numbers("google.protobuf.FileOptions") == [50001, 50002]
    for word, number in (("one", 50002), ("two", 50001)):
        file = catalog.extension("google.protobuf.FileOptions", number)
        assert file is catalog.file_of(f"{word}.S")


def test_import_cycles_end() -> None:
    """Files that import one another, which nothing can build, are given out all the same."""
    cycle = FileSet()
    cycle.file.add(name="a.proto", package="a", dependency=["b.proto"]).service.add(name="S")
    cycle.file.add(name="b.proto", package="b", dependency=["a.proto"])
    other = FileSet()
    other.file.add(name="b.proto", package="c").service.add(name="S")
    catalog = catalog_of(Schema.load(other), Schema.load(cycle))
    assert text(catalog, "a.S") == ["a.proto", "b.proto"]
    assert text(catalog, "c.S") == ["schema_2/b.proto"]
