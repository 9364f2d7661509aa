"""dynserve.schema.compiler: protoc in a child process, and everything that it may say."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from dynserve import CompileError, CompilerError, DescriptorError, Schema
from dynserve.schema import Limits, compiler
from dynserve.schema.imports import builtin_roots

from .conftest import Tree

P3 = 'syntax = "proto3";\n'
BUILTIN = "the installed google/… files"


def error_of(*sources: str | Path, include: tuple[str, ...] = ()) -> str:
    """The text of the error that loading the sources gives."""
    with pytest.raises(CompileError) as caught:
        Schema.load(*sources, include=include, cache=False)
    return str(caught.value)


# ---- what is wrong with sources


def test_a_syntax_error(tree: Tree) -> None:
    """A syntax error is shown with its place, its line and a caret."""
    tree({"a.proto": P3 + "message A {\n\tint32 é = ;\n}\n"})
    assert error_of("a.proto") == (
        "a.proto:3:8: Interpreting non ascii codepoint 195.\n"
        "  3 | \tint32 é = ;\n"
        "    | \t      ^\n"
        "a.proto:3:8: Expected field name.\n"
        "  3 | \tint32 é = ;\n"
        "    | \t      ^\n"
        "a.proto:3:8: Interpreting non ascii codepoint 169.\n"
        "  3 | \tint32 é = ;\n"
        "    | \t      ^"
    )


def test_columns_are_characters(tree: Tree) -> None:
    """A caret stands right behind tabs and letters of several bytes, which protoc counts apart."""
    tree({"a.proto": P3 + "message A {\n\t/* é\t */\tFoo x = 1;\n}\n"})
    assert error_of("a.proto") == (
        'a.proto:3:11: "Foo" is not defined.\n  3 | \t/* é\t */\tFoo x = 1;\n    | \t    \t   \t^'
    )


def test_every_error_of_every_file(tree: Tree) -> None:
    """Three errors in two files are all reported in one run, in the order of the files."""
    tree(
        {
            "a.proto": P3 + "message A {\n  X x = 1;\n  Y y = 2;\n}\n",
            "b.proto": P3 + "message B {\n  Z z = 1;\n}\n",
            "c.proto": P3 + "message C {}\n",
        }
    )
    expected = (
        'a.proto:3:3: "X" is not defined.\n'
        "  3 |   X x = 1;\n"
        "    |   ^\n"
        'a.proto:4:3: "Y" is not defined.\n'
        "  4 |   Y y = 2;\n"
        "    |   ^\n"
        'b.proto:3:3: "Z" is not defined.\n'
        "  3 |   Z z = 1;\n"
        "    |   ^"
    )
    assert error_of(".") == expected
    assert error_of("a.proto", "b.proto", "c.proto") == expected


def test_a_file_with_errors_is_not_blamed_on_its_importers(tree: Tree) -> None:
    """An error is reported where it is, not again in every file that imports that one."""
    tree(
        {
            "a.proto": P3 + "mesage A {}\n",
            "b.proto": P3 + 'import "a.proto";\nmessage B {}\n',
            "c.proto": P3 + 'import "b.proto";\nmessage C {}\n',
        }
    )
    assert error_of(".") == error_of("c.proto") == (
        'a.proto:2:1: Expected top-level statement (e.g. "message").\n'
        "  2 | mesage A {}\n"
        "    | ^"
    )  # fmt: skip


def test_warnings_do_not_hide_an_error(tree: Tree) -> None:
    """However much protoc warns of, the error in the last of a thousand files is reported."""
    files = {f"f{n:04}.proto": P3 + f'import "{"e" * 99}.proto";\n' for n in range(1000)}
    tree(files | {"e" * 99 + ".proto": P3, "z.proto": P3 + "message A { X x = 1; }\n"})
    assert error_of(".") == (
        'z.proto:2:13: "X" is not defined.\n  2 | message A { X x = 1; }\n    |             ^'
    )


def test_an_import_that_is_not_found(tree: Tree) -> None:
    """The error says which folders were searched, and the root that would have found the file."""
    tree({"api/a.proto": P3 + 'import "x/b.proto";\n', "protos/x/b.proto": P3})
    head = (
        'api/a.proto:2:1: Import "x/b.proto" was not found.\n  2 | import "x/b.proto";\n    | ^\n'
    )
    hint = f", {BUILTIN}\n  this import would resolve with `-I protos`"
    assert error_of("api/a.proto") == head + "  searched: api, the working directory" + hint
    assert error_of("api/a.proto", include=("api",)) == head + "  searched: api" + hint
    searched = "  searched: the working directory, api"
    assert error_of("api/a.proto", include=(".", "api")) == head + searched + hint
    assert Schema.load("api/a.proto", include=["api", "protos"]).declared_files == ("a.proto",)


def test_an_import_that_is_nowhere(tree: Tree) -> None:
    """Without a root that would help, only the search is told; two missing imports are two."""
    tree({"a.proto": P3 + 'import "x.proto";\nimport "y.proto";\n'})
    assert error_of("a.proto") == (
        'a.proto:2:1: Import "x.proto" was not found.\n'
        '  2 | import "x.proto";\n'
        "    | ^\n"
        f"  searched: the working directory, {BUILTIN}\n"
        'a.proto:3:1: Import "y.proto" was not found.\n'
        '  3 | import "y.proto";\n'
        "    | ^\n"
        f"  searched: the working directory, {BUILTIN}"
    )


def test_an_import_that_climbs_out(tree: Tree) -> None:
    """``../../etc/passwd`` is refused, and nothing of that file is shown."""
    tree({"a.proto": P3 + 'import "../../etc/passwd";\n'})
    assert error_of("a.proto") == (
        'a.proto:2:1: Import "../../etc/passwd" was not found.\n'
        '  2 | import "../../etc/passwd";\n'
        "    | ^\n"
        "  an import names a file below a root: it has no '\\', '.', '..' or empty part\n"
        f"  searched: the working directory, {BUILTIN}"
    )


def test_an_import_cycle(tree: Tree) -> None:
    """A cycle is shown as the path through it."""
    tree(
        {
            "a.proto": P3 + 'import "b.proto";\n',
            "b.proto": P3 + 'import "c.proto";\n',
            "c.proto": P3 + 'import "a.proto";\n',
        }
    )
    assert error_of("a.proto") == (
        "a.proto:2:1: File recursively imports itself:"
        " a.proto -> b.proto -> c.proto -> a.proto\n"
        '  2 | import "b.proto";\n'
        "    | ^"
    )


def test_a_duplicate_definition(tree: Tree) -> None:
    """A name that is defined twice is an error, within a file and across files."""
    tree({"a.proto": P3 + "message A {}\nmessage A {}\n", "b.proto": P3 + "message A {}\n"})
    assert error_of("a.proto") == (
        'a.proto:3:9: "A" is already defined.\n  3 | message A {}\n    |         ^'
    )
    Path("a.proto").write_text(P3 + "message A {}\n")
    assert error_of(".") == (
        'b.proto:2:9: "A" is already defined in file "a.proto".\n'
        "  2 | message A {}\n"
        "    |         ^"
    )


def test_a_file_without_syntax_is_a_warning(tree: Tree) -> None:
    """What protoc only warns of compiles, and the warnings are kept."""
    tree({"a.proto": "message A { optional int32 x = 1; }", "b.proto": P3 + 'import "a.proto";'})
    schema = Schema.load("b.proto", cache=False)
    assert [str(warning) for warning in schema.warnings] == [
        "a.proto: warning: no syntax or edition is given, so it is proto2",
        "b.proto:2:1: warning: Import a.proto is unused.\n"
        '  2 | import "a.proto";\n'
        "    | ^",
    ]  # fmt: skip
    assert all(warning.is_warning for warning in schema.warnings)


# ---- names that look like something else


@pytest.mark.parametrize(
    "name",
    [
        "--plugin=x.proto",
        "--version",
        "-I",
        "@x.proto",
        "a=b:c d.proto",
        "a:1:2: b.proto",
        "x\ny.proto",
        "\n",
        "x\u2028\x85y.proto",
        "ünï-日本.proto",
        "a\"b'c.proto",
        "a\\b.proto",
        "$(touch pwned).proto",
        "%s.proto",
    ],
)
def test_a_name_is_never_an_option(tree: Tree, name: str) -> None:
    """A file is a file, whatever its name looks like, and an error in it is said to be there."""
    name = name if name.endswith(".proto") else name + ".proto"
    folder = tree({})
    (folder / name).write_text(P3 + "message A {}\n")
    schema = Schema.load(folder / name, cache=False)
    schema.build()
    assert schema.declared_files == (name,)
    (folder / name).write_text(P3 + "message A { Foo x = 1; }\n")
    assert error_of(folder / name) == (
        f'{name}:2:13: "Foo" is not defined.\n  2 | message A {{ Foo x = 1; }}\n    |             ^'
    )
    assert sorted(path.name for path in folder.iterdir()) == [name]


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_any_text_compiles_or_is_a_compile_error(text: bytes) -> None:
    """Whatever a source says, it compiles or there is an error with a diagnostic in it."""
    source = P3 + "message M {}\n" + text.decode("latin-1")
    found = {"inline_1.proto"}
    try:
        Schema.load(source, cache=False).build()
    except CompileError as error:
        found = {diagnostic.file for diagnostic in error.diagnostics}
    assert found == {"inline_1.proto"}


# ---- what is wrong with protoc


def test_a_crash_of_protoc(tree: Tree) -> None:
    """An option nested 1,000 deep aborts protoc, not this process."""
    tree(
        {
            "a.proto": 'syntax = "proto2";\nimport "google/protobuf/descriptor.proto";\n'
            "message R { optional R r = 1; }\n"
            "extend google.protobuf.FileOptions { optional R r = 50000; }\n"
            f"option (r) = {'{ r: ' * 1000}{{}}{'}' * 1000};\n"
        }
    )
    with pytest.raises(CompilerError) as caught:
        Schema.load("a.proto")
    assert str(caught.value) == (
        "a.proto: protoc was ended by SIGABRT:"
        " Check failed: dynamic_message->ParseFromString(serialized)"
    )


def test_a_message_with_60_000_fields() -> None:
    """A message too large for protobuf's runtime is an error when it is asked for; others work."""
    fields = "".join(f"int32 f{n} = {n if n < 19000 else n + 1000};\n" for n in range(1, 60_001))
    schema = Schema.load(P3 + f"message Big {{ {fields} }}", P3 + "message Small { int32 n = 1; }")
    with pytest.raises(DescriptorError) as caught:
        schema.message("Big")
    assert str(caught.value) == (
        "inline_1.proto: cannot be built: Error building mini table:"
        " Message size exceeded maximum size of 65535 bytes"
    )
    assert schema.message("Small")(n=1).SerializeToString() == b"\x08\x01"


def test_names_that_cannot_lie_side_by_side(tree: Tree) -> None:
    """'a.proto' and 'a.proto/b.proto' of two roots are an error, as is a full disk."""
    tree(
        {
            "r1/m.proto": P3 + 'import "a.proto"; import "a.proto/b.proto";',
            "r1/a.proto": P3,
            "r2/a.proto/b.proto": P3,
        }
    )
    with pytest.raises(CompilerError) as caught:
        Schema.load("r1/m.proto", include=["r1", "r2"], cache=False)
    assert str(caught.value) == (
        "m.proto: 'a.proto/b.proto' cannot be laid out for protoc: File exists"
    )


def test_a_set_that_cannot_be_written(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that is larger than may be written, or than the disk, is no error of the sources."""
    monkeypatch.setattr(compiler, "_MAX_WRITTEN", 1000)
    with pytest.raises(CompilerError) as caught:
        Schema.load(P3 + "".join(f"message M{n} {{}}\n" for n in range(100)), cache=False)
    assert str(caught.value) == (
        "inline_1.proto: the descriptor set cannot be written: File too large"
    )


def test_without_a_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be laid out, the error says so."""

    def refuse(**options: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(CompilerError) as caught:
        Schema.load(P3, cache=False)
    assert str(caught.value) == (
        "inline_1.proto: there is no temporary folder:"
        " [Errno 2] No usable temporary directory found in ['/tmp']"
    )


def test_a_program_that_ignores_its_children(tree: Tree) -> None:
    """Where SIGCHLD is ignored a child's exit code is lost, and success is told all the same."""
    tree({"a.proto": P3 + "message A {}\n", "b.proto": P3 + "message B { X x = 1; }\n"})
    code = (
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from dynserve import CompileError, Schema\n"
        "print(Schema.load('a.proto', cache=False).message('A'))\n"
        "try: Schema.load('b.proto', 'a.proto', cache=False)\n"
        "except CompileError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == (
        "<class 'A'>\n"
        'b.proto:2:13: "X" is not defined.\n  2 | message B { X x = 1; }\n    |             ^\n'
    )


def test_limits_may_be_fractions() -> None:
    """Half a second is a limit too."""
    limits = Limits(seconds=Fraction("20.5"), memory=2e9)  # type: ignore[arg-type]
    assert Schema.load(P3, cache=False, limits=limits).declared_files == ("inline_1.proto",)


def test_a_child_that_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No set is an error, whatever the child's exit code."""
    child = tmp_path / "child.py"
    child.write_text("")
    monkeypatch.setattr(compiler, "_CHILD", child)
    with pytest.raises(CompileError) as caught:
        Schema.load(P3, cache=False)
    assert str(caught.value) == "protoc: no descriptor set was written"


def test_the_time_limit() -> None:
    """protoc is stopped when its time is over."""
    with pytest.raises(CompilerError) as caught:
        Schema.load(P3, cache=False, limits=Limits(seconds=0))
    assert str(caught.value) == "inline_1.proto: protoc was stopped after 0 s"


def test_the_limit_of_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system stops a protoc that only computes, should we no longer be there to do it."""
    text = P3 + "".join(f"message M{n} {{ int32 a = 1; }}\n" for n in range(800_000))
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda *args, **kwargs: run(*args, **kwargs | {"timeout": 60})
    )
    with pytest.raises(CompilerError) as caught:
        Schema.load(text, cache=False, limits=Limits(seconds=1))
    assert str(caught.value) == "inline_1.proto: protoc was stopped after 1 s"


@pytest.mark.parametrize("mebibytes", [1, 150])
def test_the_memory_limit(mebibytes: int) -> None:
    """protoc gets no more memory than its limit, whether it starts with that or not."""
    text = P3 + "".join(f"message M{n} {{ int32 a = 1; int32 b = 2; }}\n" for n in range(100_000))
    with pytest.raises(CompilerError) as caught:
        Schema.load(text, cache=False, limits=Limits(memory=mebibytes << 20))
    assert str(caught.value) == (
        f"inline_1.proto: protoc needs more than its limit of {mebibytes} MiB"
    )


def test_errors_found_in_time_are_kept(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time does not suffice to ask for every file's errors, the first are reported."""
    tree({"a.proto": P3 + "oops\n", "b.proto": P3 + "oops\n"})
    child = tree({}) / "child.py"
    code = Path(compiler.__file__).with_name("_protoc.py").read_text()
    assert "/ 2" in code
    child.write_text(code.replace("/ 2", "* 0"))
    monkeypatch.setattr(compiler, "_CHILD", child)
    assert error_of(".") == (
        'a.proto:2:1: Expected top-level statement (e.g. "message").\n  2 | oops\n    | ^'
    )


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; print('no luck', file=sys.stderr); sys.exit(70)", "exit code 70: no luck"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_a_child_that_fails_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, text: str
) -> None:
    """However the child ends, the error tells it."""
    child = tmp_path / "child.py"
    child.write_text(code)
    monkeypatch.setattr(compiler, "_CHILD", child)
    with pytest.raises(CompilerError) as caught:
        Schema.load(P3, cache=False)
    assert str(caught.value) == f"inline_1.proto: protoc ended with {text}"


def test_a_child_that_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A compilation that the system ends, for want of memory say, is an error and no more."""
    child = tmp_path / "child.py"
    child.write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr(compiler, "_CHILD", child)
    with pytest.raises(CompilerError) as caught:
        Schema.load(P3, cache=False)
    assert str(caught.value) == "inline_1.proto: protoc was ended by SIGKILL"


def test_a_python_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that is gone is an error that names it."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(CompilerError) as caught:
        Schema.load(P3, cache=False)
    assert str(caught.value) == (
        "inline_1.proto: protoc cannot be started with '/no/such/python': No such file or directory"
    )


def test_without_grpcio_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing compiler is an error that says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CompilerError) as caught:
        Schema.load(P3, cache=False)
    assert str(caught.value) == "inline_1.proto: grpcio-tools is not installed"


def test_nothing_of_the_users_runs_in_the_child(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of the working directory and no variable gets code into the compiling process."""
    folder = tree(
        {
            "json.py": "raise SystemExit('json of the user')",
            "sitecustomize.py": "raise SystemExit('sitecustomize of the user')",
            "grpc_tools.py": "raise SystemExit('grpc_tools of the user')",
            "a.proto": P3,
        }
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PYTHONSTARTUP", str(folder / "json.py"))
    assert Schema.load("a.proto", cache=False).declared_files == ("a.proto",)


# ---- the same as protoc


def test_what_comes_out_is_protocs_own(tree: Tree) -> None:
    """For a tree, our set is byte for byte what protoc writes with the same flags."""
    folder = tree(
        {
            "api/v1/a.proto": 'edition = "2024";\npackage api.v1;\n'
            'import "google/api/annotations.proto";\n'
            'import "google/protobuf/timestamp.proto";\nimport option "opt.proto";\n'
            "// A service.\nservice S {\n  // A method.\n"
            "  rpc Get(M) returns (stream M) {\n"
            '    option (google.api.http) = { get: "/v1/{name}" };\n'
            '    option (opt.kept) = "yes";\n  }\n}\n'
            "message M { string name = 1; google.protobuf.Timestamp at = 2;\n"
            "  map<string, M> children = 3; }\n",
            "api/v1/b.proto": 'syntax = "proto2";\npackage api.v1;\n'
            "message Old { required int32 a = 1 [default = 3]; optional group G = 2 {}\n"
            "  extensions 100 to max; }\nextend Old { optional string more = 100; }\n",
            "opt.proto": 'edition = "2023";\npackage opt;\n'
            'import "google/protobuf/descriptor.proto";\n'
            "extend google.protobuf.MethodOptions {\n"
            "  string kept = 50000 [retention = RETENTION_SOURCE]; }\n",
        }
    )
    names = ["api/v1/a.proto", "api/v1/b.proto", "opt.proto"]
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", "-I."),
            *(f"-I{root}" for root in builtin_roots()),
            *("--include_imports", "--include_source_info", "--retain_options"),
            *("--descriptor_set_out=set.binpb", *names),
        ],
        cwd=folder,
        check=True,
        timeout=60,
    )
    theirs = descriptor_pb2.FileDescriptorSet.FromString((folder / "set.binpb").read_bytes())
    ours = Schema.load(".", cache=False)
    assert list(ours.declared_files) == names
    assert [file.name for file in theirs.file] == list(ours.index.files)
    assert [file.SerializeToString() for file in theirs.file] == [
        ours.index.raw(name) for name in ours.index.files
    ]
