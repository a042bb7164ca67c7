#!/usr/bin/env python3
"""Run the tuner as on processors without AVX-512, AVX2 or FMA, by qemu-user (Debian: qemu-user).

    cargo build --release
    python3 tests/foreign_processors.py --tuner target/release/tuner [--test TEST_BINARY ...]

As each processor, it checks every kernel that is there against the oracle, on shapes of each kind of
convolution; runs a block, whose results must be close to those of this processor; and is given a plan for
a kernel that is not there, which must be refused by the kernel's name.  `--test` runs test binaries as
well, as `cargo test --no-run` names them.  Python needs no packages.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

# A processor of qemu, and the last tier that it has.
PROCESSORS = {
    "Haswell": "avx2",
    "Haswell,-fma": "plain",
    "SandyBridge": "plain",
    "Nehalem": "plain",
    "qemu64": "plain",
}
SHAPES = ["n1h9w9c16k24r3s3", "n1h9w9c16k24r3s3u2", "n1h9w9c16k24r1s7", "n2h8w8c32k16r1s1", "n1h8w8c8k8r5s5"]
# A block of the network that qemu computes in seconds.
SMALL = ["--model", "conv2d_bn", "--shape", "n1h17w17c64k64r3s3", "--threads", "2"]
# Relative to the largest: sums of 576 products in another order.
TOLERANCE = 1e-5


def values(path: Path) -> list:
    """The values of a float32 .npy."""
    data = path.read_bytes()
    start = 10 + struct.unpack("<H", data[8:10])[0]
    return list(struct.unpack(f"<{(len(data) - start) // 4}f", data[start:]))


class Failure(Exception):
    pass


def run(words: list, folder: Path, status: int = 0, timeout: float = 600.0) -> str:
    environment = {**os.environ, "TUNER_RESULTS": str(folder / "results")}
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)
    if ran.returncode != status:
        shown = " ".join(map(str, words))
        raise Failure(f"{shown}: exit status {ran.returncode}, expected {status}: {(ran.stderr or ran.stdout).strip()[-300:]}")
    return ran.stdout if status == 0 else ran.stderr


def as_processor(processor: str, tier: str, tuner: Path, tests: list, folder: Path) -> str:
    qemu = ["qemu-x86_64", "-cpu", processor, tuner]
    kernels = set()
    for shape in SHAPES:
        found = json.loads(run([*qemu, "check", "--shape", shape, "--threads", "2", "--json"], folder))
        checks = [check for problem in found["problems"] for check in problem["kernels"]]
        wrong = [check for check in checks if not check["holds"]]
        if wrong:
            raise Failure(f"{processor}, {shape}: wrong: {wrong}")
        kernels |= {check["kernel"] for check in checks}
    foreign = {kernel for kernel in kernels if "avx" in kernel and (tier == "plain" or not kernel.endswith("_avx2"))}
    if foreign:
        raise Failure(f"{processor} ran {sorted(foreign)}")
    run([*qemu, "run", *SMALL, "--output", "foreign.npy"], folder)
    ours, theirs = values(folder / "ours.npy"), values(folder / "foreign.npy")
    error = max(abs(a - b) for a, b in zip(ours, theirs)) / max(map(abs, ours))
    if len(ours) != len(theirs) or error > TOLERANCE:
        raise Failure(f"{processor}: results differ by {error:.1e}")
    said = run([*qemu, "run", *SMALL, "--plan", "plan.json", "--any-machine"], folder, status=2)
    # qemu itself warns of what it lacks of a processor.
    refusal = "".join(line for line in said.splitlines() if line.startswith("error: "))
    kernel = json.loads((folder / "plan.json").read_text())["steps"][0]["kernel"]
    if kernel not in refusal or "processor has no" not in refusal:
        raise Failure(f"{processor}: a plan for {kernel} is refused by: {said.strip()}")
    for test in tests:
        run(["qemu-x86_64", "-cpu", processor, test.resolve(), "--test-threads", "2"], folder, timeout=7200)
    return f"{len(kernels)} kernels on {len(SHAPES)} shapes, results within {error:.1e}; {refusal}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuner", type=Path, required=True)
    parser.add_argument("--test", type=Path, nargs="+", default=[])
    args = parser.parse_args()
    tuner, wrong = args.tuner.resolve(), 0
    with tempfile.TemporaryDirectory(prefix="foreign-") as name:
        folder = Path(name)
        run([tuner, "run", *SMALL, "--output", "ours.npy"], folder)
        run([tuner, *SMALL, "--budget", "1", "--out", "plan.json"], folder)
        for processor, tier in PROCESSORS.items():
            try:
                print(f"{processor}: {as_processor(processor, tier, tuner, args.test, folder)}", flush=True)
            except (Failure, subprocess.TimeoutExpired) as failure:
                wrong += 1
                print(f"error: {failure}", file=sys.stderr, flush=True)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
