"""The supervisor as a process of its own, without what the command line had to import.

``dynserve run`` knows the plan when click and grpc are loaded. The process keeps its pid and
becomes another program, which is a quarter as large.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import NoReturn

from dynserve.errors import DynserveError

from .plan import Plan
from .supervisor import Supervisor

__all__ = ["become", "become_command", "main", "this_command"]

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

# Isolated (-I): no file beside the user's working directory may be taken for a module of ours. Then
# import paths as they were, since the package may be on one that only the environment named.
_PROGRAM = (
    "import json, sys; told = json.loads(sys.argv[1]); sys.path[:] = told['path'];"
    " from dynserve.workers.entry import main; sys.exit(main(sys.argv[1]))"
)


def this_command() -> tuple[str, ...]:
    """What this process was started with, options of the interpreter and all."""
    return (sys.executable, *sys.orig_argv[1:])


def become(plan: Plan, log_level: str = "info") -> NoReturn:
    """Replace this process, as it is, by the supervisor of the plan.

    ``log_level`` is one of logging's, in small letters or capitals.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, become_command(plan, log_level))  # noqa: S606 - it is this program


def become_command(plan: Plan, log_level: str = "info") -> list[str]:
    """The command whose process is the supervisor of the plan."""
    path = list(map(str, sys.path))
    told = json.dumps({"plan": plan.as_json(), "log_level": log_level, "path": path})
    return [sys.executable, "-I", "-c", _PROGRAM, told]


def main(told: str) -> int:
    """Supervise; returns the exit code. ``told`` is what :func:`become_command` puts in JSON."""
    values = json.loads(told)
    logging.basicConfig(level=values["log_level"].upper(), format=LOG_FORMAT)
    try:
        return Supervisor(Plan.of_json(values["plan"])).run()
    except DynserveError as error:
        sys.stderr.write(f"Error: {error}\n")
        return error.exit_code
