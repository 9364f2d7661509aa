"""The child process that runs protoc: a script, never imported.

It is started as ``python -I -S _protoc.py`` with the folder of the laid-out sources as working
directory and a job, in marshal's form, on standard input, so nothing that a user named is ever an
argument. The set is written to the job's ``output``, only if all files compile.
protoc is in grpcio-tools' extension module, which writes its diagnostics to descriptor 2 directly.

protoc stops at the first file of its arguments that has errors, so after a failure each file is
run by itself, until all have had their say, there is enough to read, or half of the time is gone:
what was said by then is worth more than a time limit that was hit.

It exits with protoc's code, which is 0 or 1, or with 70 where protoc could not be run.
"""

import marshal
import math
import os
import sys
import time


def limit(job: dict) -> None:  # type: ignore[type-arg]
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    # macOS takes no address space below what is mapped already, which there is hundreds of GiB
    memory = resource.RLIM_INFINITY if sys.platform == "darwin" else math.ceil(job["memory"])
    for kind, amount in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, math.ceil(job["seconds"])),
        (resource.RLIMIT_FSIZE, job["written"]),
    ):
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or amount < hard:
            resource.setrlimit(kind, (amount, hard))


def main() -> int:
    job = marshal.load(sys.stdin.buffer)  # noqa: S302 - the parent's; json takes 6 ms to load
    until = time.monotonic() + job["seconds"] / 2
    sys.path.append(job["packages"])
    limit(job)
    from grpc_tools import _protoc_compiler

    def run(files: list, output: str) -> int:  # type: ignore[type-arg]
        # './' in front: no file name can be an option or a response file
        names = ["./" + name for name in files]
        words = ["protoc", "-I.", "--descriptor_set_out=" + output, *job["flags"], *names]
        return int(_protoc_compiler.run_main([word.encode() for word in words]))

    failed = run(job["files"], job["output"])
    if failed and len(job["files"]) > 1:
        for name in job["files"]:
            run([name], os.devnull)
            if os.fstat(2).st_size > job["enough"] or time.monotonic() > until:
                break
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(70)
