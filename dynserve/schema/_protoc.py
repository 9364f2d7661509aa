"""The child process that runs protoc: a script, never imported.

It is started as ``python -I -S _protoc.py`` with the folder of the laid-out sources as working
directory and a job as JSON on standard input, so nothing that a user named is ever an argument.
protoc is in grpcio-tools' extension module, which writes its diagnostics to descriptor 2 directly.

protoc stops at the first file of its arguments that has errors, so after a failure each file is
run by itself, until all have had their say, there is enough to read, or half of the time is gone:
what was said by then is worth more than a time limit that was hit.

It exits with protoc's code, which is 0 or 1, or with 70 where protoc could not be run.
"""

import json
import os
import sys
import time
import traceback


def limit(job: dict) -> None:  # type: ignore[type-arg]
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, amount in (
        (resource.RLIMIT_AS, job["memory"]),
        (resource.RLIMIT_CPU, job["seconds"]),
    ):
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or amount < hard:
            resource.setrlimit(kind, (amount, hard))


def main() -> int:
    job = json.load(sys.stdin)
    until = time.monotonic() + job["seconds"] / 2
    sys.path.append(job["packages"])
    limit(job)
    from grpc_tools import _protoc_compiler

    def run(files: list) -> int:  # type: ignore[type-arg]
        # './' in front: no file name can be an option or a response file
        words = ["protoc", "-I.", *job["flags"], *("./" + name for name in files)]
        return int(_protoc_compiler.run_main([os.fsencode(word) for word in words]))

    failed = run(job["files"])
    if failed and len(job["files"]) > 1:
        for name in job["files"]:
            run([name])
            if os.fstat(2).st_size > job["enough"] or time.monotonic() > until:
                break
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Exception, MemoryError):
        traceback.print_exc()
        sys.exit(70)
