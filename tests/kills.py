#!/usr/bin/env python3
"""Kill the tuner at random moments, and see that nothing is lost or half-written.

    cargo build --release
    python3 tests/kills.py --tuner target/release/tuner --kills 200

Four commands in turn are killed by SIGKILL: a tuning, a run that writes results, a run that writes a
weight cache, and a merge of logs.  After each kill the files must be whole or absent; the same command
then runs to its end, and gives what it gives without a kill, and no temporary file is left.  `--minutes M`
is a soak: the commands come in random order for so long, and what earlier ones have left stays there.
`--stop N` stops a tuning for N seconds as well (SIGSTOP, SIGCONT): it ends with a plan.  Python needs no
packages.
"""

import argparse
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SMALL = "--model conv2d_bn --shape n1h9w9c16k24r3s3"


def npy(path: Path, shape: list, seed: int) -> None:
    """Random float32 values as numpy writes them."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    count = 1
    for size in shape:
        count *= size
    values = random.Random(seed)
    data = struct.pack(f"<{count}f", *(values.random() for _ in range(count)))
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data)


class Failure(Exception):
    pass


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Failure(what)


class Runner:
    def __init__(self, tuner: Path, folder: Path):
        self.tuner, self.folder = tuner.resolve(), folder

    def start(self, words: str) -> subprocess.Popen:
        environment = {**os.environ, "TUNER_RESULTS": str(self.folder / "results")}
        return subprocess.Popen([self.tuner, *words.split()], cwd=self.folder, env=environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def run(self, words: str) -> None:
        process = self.start(words)
        errors = process.communicate()[1].decode()
        expect(process.returncode == 0, f"{words}: exit status {process.returncode}: {errors.strip()[-300:]}")

    def killed(self, words: str, after: float) -> bool:
        """Kills it after so many seconds; whether it still ran."""
        process = self.start(words)
        try:
            process.communicate(timeout=after)
            return False
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True

    def go_on(self, words: str, output: str) -> None:
        """Rows appear as they come: a file that is there can be gone on with."""
        resumed = any(path.name.startswith(output) for path in self.folder.iterdir())
        self.run(words + (" --resume" if resumed else ""))

    def left_over(self) -> list:
        return [str(path) for path in self.folder.rglob(".tuner-*")]


def is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
        return True
    except ValueError:
        return False


def torn_lines(log: Path) -> int:
    """Lines that are no JSON, but for a last one without its end."""
    lines = log.read_bytes().split(b"\n")
    torn = 0
    for line in lines[:-1]:
        try:
            json.loads(line)
        except ValueError:
            torn += 1
    return torn


def tune(runner: Runner, after: float) -> bool:
    words = f"{SMALL} --budget 1 --threads 1 --out p.json"
    plan = runner.folder / "p.json"
    was_killed = runner.killed(words, after)
    expect(not plan.exists() or is_json(plan), "the plan is half-written")
    logs = list((runner.folder / "results").rglob("*.jsonl"))
    for log in logs:
        expect(torn_lines(log) == 0, f"{log}: torn lines")
    before = {log: [line for line in log.read_bytes().split(b"\n")[:-1]] for log in logs}
    runner.run(words)
    for log, lines in before.items():
        expect(log.read_bytes().split(b"\n")[: len(lines)] == lines, f"{log}: lost lines")
    runner.run(f"run {SMALL} --plan p.json --input small.npy --top 0")
    return was_killed


def write_results(runner: Runner, after: float) -> bool:
    return writes_the_same(runner, after, "--input block.npy --output y.npy", "y.npy", "expected.npy")


def write_cache(runner: Runner, after: float) -> bool:
    return writes_the_same(runner, after, "--input one.npy --packed packed --output z.npy", "z.npy", "one-expected.npy")


def writes_the_same(runner: Runner, after: float, options: str, output: str, expected: str) -> bool:
    words = f"run --model mixed10 --threads 1 {options}"
    was_killed = runner.killed(words, after)
    runner.go_on(words, output)
    result = (runner.folder / output).read_bytes()
    expect(result == (runner.folder / expected).read_bytes(), f"{output}: other results than without a kill")
    return was_killed


def merge(runner: Runner, after: float) -> bool:
    log = runner.folder / "all.jsonl"
    before = sorted(log.read_bytes().splitlines())
    was_killed = runner.killed("merge all.jsonl all.jsonl --out all.jsonl", after)
    expect(torn_lines(log) == 0 and log.read_bytes().endswith(b"\n"), "the log is half-written")
    runner.run("merge all.jsonl all.jsonl --out all.jsonl")
    expect(sorted(log.read_bytes().splitlines()) == before, "merging has lost lines")
    return was_killed


# A command and the seconds in which it is killed.
COMMANDS = {"tune": (tune, 1.6), "results": (write_results, 0.8), "cache": (write_cache, 0.5), "merge": (merge, 0.06)}


def prepare(runner: Runner) -> None:
    npy(runner.folder / "small.npy", [1, 9, 9, 16], 1)
    npy(runner.folder / "block.npy", [40, 8, 8, 2048], 2)
    npy(runner.folder / "one.npy", [1, 8, 8, 2048], 3)
    runner.run("run --model mixed10 --threads 1 --input block.npy --output expected.npy")
    runner.run("run --model mixed10 --threads 1 --input one.npy --output one-expected.npy")
    runner.run(f"{SMALL} --budget 1 --threads 1 --out first.json")
    log = next((runner.folder / "results").rglob("*.jsonl"))
    shutil.copy(log, runner.folder / "all.jsonl")
    runner.run("merge all.jsonl --out all.jsonl")


def stop(runner: Runner, seconds: float) -> None:
    process = runner.start(f"{SMALL} --budget 2 --threads 1 --fresh --out stopped.json")
    time.sleep(0.7)
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)
    errors = process.communicate(timeout=120)[1].decode()
    expect(process.returncode == 0, f"stopped for {seconds} s: {errors.strip()[-300:]}")
    expect(is_json(runner.folder / "stopped.json"), "no plan after a stop")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuner", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, help="a soak of so long, in place of a number of kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stop", type=float, default=0.0, metavar="SECONDS")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    killed = dict.fromkeys(COMMANDS, 0)
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        runner = Runner(args.tuner, Path(name))
        prepare(runner)
        if args.stop:
            stop(runner, args.stop)
            print(f"stopped for {args.stop} s: a plan")
        runs, start = 0, time.monotonic()
        is_over = lambda: sum(killed.values()) >= args.kills
        if args.minutes:
            is_over = lambda: time.monotonic() - start > 60 * args.minutes
        while not is_over():
            kind = chance.choice(list(COMMANDS)) if args.minutes else min(killed, key=killed.get)
            command, most = COMMANDS[kind]
            if not args.minutes or chance.random() < 0.2:
                for old in ("p.json", "y.npy", "packed", "z.npy"):
                    (runner.folder / old).unlink(missing_ok=True)
                shutil.rmtree(runner.folder / "results", ignore_errors=True)
            runs += 1
            try:
                killed[kind] += command(runner, chance.random() * most)
                left = runner.left_over()
                expect(not left, f"left over: {left}")
            except Failure as failure:
                print(f"error: {kind}, run {runs}: {failure}", file=sys.stderr)
                return 1
    kinds = ", ".join(f"{count} of {kind}" for kind, count in killed.items())
    minutes = (time.monotonic() - start) / 60
    print(f"{sum(killed.values())} kills ({kinds}) in {runs} runs and {minutes:.0f} minutes: nothing lost, nothing "
          "half-written, nothing left over")
    return 0


if __name__ == "__main__":
    sys.exit(main())
