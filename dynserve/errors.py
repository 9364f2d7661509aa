"""Every exception of dynserve that is not an RPC status; whose fault it is, is its class.

The fields of an error are data; its text is made in ``__str__``. ``exit_code`` is what the command
line returns for it: 2 where the user's words to the command were wrong, 1 for everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "AddressError",
    "BindError",
    "CompileError",
    "CompilerError",
    "CredentialsError",
    "DescriptorError",
    "Diagnostic",
    "DynserveError",
    "EngineError",
    "MessageError",
    "PluginError",
    "ReflectionError",
    "SourceError",
    "SymbolError",
    "TargetError",
    "TerminatedError",
    "UnhandledMethodsError",
]

_MAX_CANDIDATES = 200
_MAX_NAME = 200
_LIKE = 0.6  # from 0 to 1: how much of two names is the same for one to be meant by the other
_MAX_LINE = 160  # characters of a source line that are shown


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """The names most like ``name``, best first.

    A name whose last component is the same but for case comes before one that is only spelled
    alike; within one package only the last component is compared. The work is bounded whatever the
    peer sends: names are cut to 200 characters, at most 200 candidates are compared letter by
    letter.
    """
    import difflib  # only once something is wrong

    name = name[:_MAX_NAME]
    last = _last_component(name)
    package = name[: len(name) - len(last)]
    whole, part = (difflib.SequenceMatcher(b=text) for text in (name, last))

    def likeness(other: str) -> float:
        matcher, text = (
            (part, other[len(package) :]) if other.startswith(package) else (whole, other)
        )
        matcher.set_seq1(text)
        return matcher.ratio()

    names = list(candidates)
    same = [other for other in names if _last_component(other).lower() == last.lower()][:count]
    close = (other for other in names if abs(len(other) - len(name)) <= max(4, len(name) // 3))
    limited = [other for other, _ in zip(close, range(_MAX_CANDIDATES), strict=False)]
    scored = sorted((-likeness(other), other) for other in limited)
    alike = [other for score, other in scored if score <= -_LIKE]
    return list(dict.fromkeys([*same, *alike]))[:count]


def _last_component(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2]


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """``"; did you mean 'a' or 'b'?"``, or nothing where no name is near."""
    names = nearest(name, candidates)
    return f"; did you mean {' or '.join(map(repr, names))}?" if names else ""


class DynserveError(Exception):
    """Base of every error that dynserve raises itself."""

    exit_code = 1


class _ProblemError(DynserveError):
    """One that says of what there is which problem."""

    def __init__(self, subject: str, problem: str) -> None:
        super().__init__(subject, problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.problem}"


class TargetError(_ProblemError):
    """What was named is not there to be loaded as a plugin, or cannot be called."""

    exit_code = 2

    def __init__(self, target: str, problem: str) -> None:
        super().__init__(target, problem)
        self.target = target


class EngineError(DynserveError):
    """The engine that was asked for does not work here."""

    def __init__(self, engine: str, problem: str) -> None:
        super().__init__(engine, problem)
        self.engine = engine
        self.problem = problem

    def __str__(self) -> str:
        return f"engine {self.engine!r}: {self.problem}; engine='aio' needs public parts only"


class PluginError(DynserveError):
    """A plugin was found, but importing it raised; ``__cause__`` is its own exception."""

    def __init__(self, target: str, problem: str, hint: str = "") -> None:
        super().__init__(target, problem, hint)
        self.target = target
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.target}: {self.problem}" + (f"\n  {self.hint}" if self.hint else "")


class CredentialsError(_ProblemError):
    """What a connection is to be secured with cannot be used; ``name`` is the argument."""

    exit_code = 2

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name


class ReflectionError(_ProblemError):
    """A server does not tell what it serves, or its answers make no sense."""

    def __init__(self, target: str, problem: str) -> None:
        super().__init__(target, problem)
        self.target = target


class SourceError(_ProblemError):
    """A schema source cannot be read: it is missing, empty, or not what its name says."""

    exit_code = 2

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(source, problem)
        self.source = source


class DescriptorError(_ProblemError):
    """A descriptor set is damaged, incomplete or contradicts itself."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(source, problem)
        self.source = source


class Diagnostic(NamedTuple):
    """One thing that protoc said about a source file.

    ``line`` and ``column`` (in characters) count from 1 and are 0 where protoc gave none;
    ``source_line`` is the text of that line, empty where it is unknown.
    """

    file: str
    line: int
    column: int
    message: str
    source_line: str = ""
    hint: str = ""

    @property
    def is_warning(self) -> bool:
        """Whether the file compiles all the same."""
        return self.message.startswith("warning: ")

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        lines = [f"{place}: {self.message}"]
        if self.source_line:
            number = str(self.line)
            start = 0 if self.column < _MAX_LINE else self.column - _MAX_LINE // 2
            shown = self.source_line[start : start + _MAX_LINE]  # minified files have one line
            before = shown[: self.column - 1 - start]
            padding = "".join("\t" if char == "\t" else " " for char in before)
            lines.append(f"  {number} | {shown}")
            lines.append(f"  {' ' * len(number)} | {padding}^")
        if self.hint:
            lines += [f"  {line}" for line in self.hint.splitlines()]
        return "\n".join(lines)


class CompileError(DynserveError):
    """.proto files with errors in them; ``diagnostics`` has every one, in protoc's order."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(tuple(diagnostics))
        self.diagnostics = tuple(diagnostics)

    def __str__(self) -> str:
        return "\n".join(map(str, self.diagnostics))


class CompilerError(DynserveError):
    """protoc itself failed: it crashed, ran out of time or memory, or could not be started."""

    def __init__(self, problem: str, files: Sequence[str]) -> None:
        super().__init__(problem, tuple(files))
        self.problem = problem
        self.files = tuple(files)

    def __str__(self) -> str:
        shown = ", ".join(self.files[:5])
        more = len(self.files) - 5
        return f"{shown}{f' and {more} more' if more > 0 else ''}: {self.problem}"


class SymbolError(DynserveError, LookupError):
    """There is nothing of that name in ``place``, which is a schema, or a server."""

    def __init__(
        self, kind: str, name: str, candidates: Iterable[str] = (), place: str = "in the schema"
    ) -> None:
        self.kind = kind
        self.name = name
        self.place = place
        # A list first: another thread may add to what is iterated.
        self.nearest = tuple(nearest(name, [one for one in list(candidates) if one != name]))
        super().__init__(kind, name, self.nearest, place)

    def __str__(self) -> str:
        near = " or ".join(map(repr, self.nearest))
        return f"no {self.kind} {self.name!r} {self.place}" + (
            f"; did you mean {near}?" if near else ""
        )


class MessageError(DynserveError, TypeError):
    """A Python value does not fit the message or field it is meant for.

    ``path`` names the field from the message's full name on: ``pkg.Feature.location.latitude``,
    ``pkg.Page.items[3]``, ``pkg.Page.labels['a']``.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def under(self, step: str) -> MessageError:
        """The same error seen from one level further out."""
        return MessageError(step + self.path, self.problem)

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class BindError(DynserveError):
    """Handlers do not fit the schema; ``problems`` has every one found, a text each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class UnhandledMethodsError(DynserveError):
    """Methods without a handler, where every method was to have one (``--strict``)."""

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__(tuple(methods))
        self.methods = tuple(methods)

    def __str__(self) -> str:
        noun = "method has" if len(self.methods) == 1 else "methods have"
        listed = "".join(f"\n  {method}" for method in self.methods)
        return f"{len(self.methods)} {noun} no handler (strict):{listed}"


class AddressError(DynserveError):
    """An address cannot be listened on, or is none; ``exit_code`` is 2 for the latter."""

    def __init__(self, address: str, problem: str, exit_code: int = 1) -> None:
        super().__init__(address, problem, exit_code)
        self.address = address
        self.problem = problem
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"cannot listen on {self.address}: {self.problem}"


class SettingError(DynserveError, ValueError):
    """A setting has a value that it cannot have, or that does not fit another."""

    exit_code = 2

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(name, value, expected)
        self.name, self.value, self.expected = name, value, expected

    def __str__(self) -> str:
        return f"got {self.name}={self.value!r}, expected {self.expected}"


class TerminatedError(DynserveError):
    """gRPC's own server ended by itself, too often to go on; ``__cause__`` says why."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem
