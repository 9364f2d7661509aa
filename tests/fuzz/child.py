"""One fuzzer in a process of its own, which a crash ends and nothing else.

``python -m tests.fuzz.child NAME ENGINE CASES [SEED]`` prints the number of cases and what came of
them, as JSON. Without a seed the cases are the same in every run.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase

from tests.fuzz.fuzzers import FUZZERS


def main() -> int:
    """The command line."""
    faulthandler.enable()
    name, engine, cases, *seed = sys.argv[1:]
    fuzzer = FUZZERS[name](engine)
    count = 0

    def check(case: Any) -> None:
        nonlocal count
        count += 1
        fuzzer.check(case)

    test = hypothesis.given(fuzzer.inputs)(check)
    test = hypothesis.settings(
        max_examples=int(cases),
        deadline=None,
        database=None,
        derandomize=not seed,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )(test)
    if seed:
        test = hypothesis.seed(int(seed[0]))(test)
    try:
        test()
    finally:
        fuzzer.close()
    print(json.dumps({"cases": count, "outcomes": dict(fuzzer.outcomes.most_common())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
