#!/usr/bin/env python3
"""Runs a program under limits of the address space from 100 MB to 1 GB, in steps of 10 MB.

    tests/memory_limits.py TUNER [--weights FILE] [--step MB] [--threads N ...]

Each run must end with exit status 0, or with 2 and one line on standard error: never by a signal, and
never by a panic. It prints, for each command, from which limit on it succeeds, and how many runs ended how.
The exit status is 1 if a run ended in another way.
"""

import argparse
import collections
import os
import resource
import subprocess
import sys
import tempfile


def run(command, limit_kib, folder):
    """The exit status of a command under `ulimit -v`, and what it wrote to standard error."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (limit_kib << 10, limit_kib << 10))

    environment = {**os.environ, "TUNER_RESULTS": os.path.join(folder, "results")}
    ran = subprocess.run(command, preexec_fn=limit, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return ran.returncode, ran.stderr.decode(errors="replace")


def is_right(status, errors):
    """Whether a run ended as it should: progress and notes may come before an error."""
    lines = [line for line in errors.splitlines() if line.startswith("error: ") or "panicked" in line]
    return status == 0 or status == 2 and len(lines) == 1 and "panicked" not in errors


def sweep(name, command, args, folder):
    """The number of runs that ended wrongly."""
    ends, least, wrong = collections.Counter(), None, 0
    for mb in range(100, 1001, args.step):
        status, errors = run(command, mb * 1000, folder)
        ends[status] += 1
        if status == 0 and least is None:
            least = mb
        if not is_right(status, errors):
            wrong += 1
            print(f"{name}, {mb} MB: status {status}: {errors.strip()[-300:]}", flush=True)
    statuses = ", ".join(f"{count} of status {status}" for status, count in sorted(ends.items()))
    print(f"|{name}|{least or 'none'}|{statuses}|", flush=True)
    return wrong


def main():
    """Sweeps all commands."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tuner")
    parser.add_argument("--weights", help="weights of InceptionV3")
    parser.add_argument("--step", type=int, default=10, help="MB from one limit to the next")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    weights = [[]] + ([["--weights", args.weights]] if args.weights else [])
    print("|command|succeeds from MB on|ends|\n|---|---|---|")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "results"))
        for threads in args.threads:
            for more in weights:
                command = [args.tuner, "run", "--model", "inception_v3", "--threads", str(threads), *more]
                name = f"run, {threads} threads" + (", weights" if more else "")
                wrong += sweep(name, command, args, folder)
            command = [args.tuner, "--model", "mixed0", "--budget", "1", "--fresh", "--threads", str(threads)]
            wrong += sweep(f"tune mixed0, {threads} threads", command, args, folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
