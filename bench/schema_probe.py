"""Opens a schema once, in a fresh process: schema_probe.py WAY PATH SERVICE [INCLUDE]

Prints one JSON object: milliseconds and megabytes (resident memory) to open it, and to have the
service with the message classes of its first method as well. What is imported is imported before
the clock starts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Opens a path with include roots, and returns what makes the first request class of a service.
Opened = Callable[[str], Any]


def eager_pool() -> Callable[[Path, list[str]], Opened]:
    """What one writes by hand: every file of a descriptor set goes into a pool of its own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    def load(path: Path, include: list[str]) -> Opened:
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
            pool.Add(file)

        def first_request(service: str) -> Any:
            method = pool.FindServiceByName(service).methods[0]
            message_factory.GetMessageClass(method.output_type)
            return message_factory.GetMessageClass(method.input_type)

        return first_request

    return load


def dynserve_schema() -> Callable[[Path, list[str]], Opened]:
    """`Schema.load` with everything as it comes."""
    from dynserve import Schema

    def load(path: Path, include: list[str]) -> Opened:
        schema = Schema.load(path, include=include)

        def first_request(service: str) -> Any:
            return next(iter(schema.service(service).methods.values())).request

        return first_request

    return load


WAYS = {"eager": eager_pool, "dynserve": dynserve_schema}


def resident() -> float:
    """Megabytes of resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(way: str, path: str, service: str, *include: str) -> None:
    """Measures, and prints the figures."""
    load = WAYS[way]()
    before, start = resident(), time.perf_counter()
    first_request = load(Path(path), list(include))
    opened = time.perf_counter()
    request = first_request(service)
    done, memory = time.perf_counter(), resident()
    name = request(parent="x").DESCRIPTOR.full_name  # it is a class that works
    figures = {
        "load ms": (opened - start) * 1000,
        "with a service ms": (done - start) * 1000,
        "load MB": memory - before,
    }
    print(json.dumps({"request": name, **figures}))


if __name__ == "__main__":
    main(*sys.argv[1:])
