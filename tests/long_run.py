#!/usr/bin/env python3
"""Run a network many times, and see that its memory does not grow and its latency does not drift.

    cargo build --release
    python3 tests/long_run.py --tuner target/release/tuner --inferences 100000

Memory is the resident set, read each half second.  It may grow by what the run reports: the latencies, of
eight bytes each, in memory that may double when it grows.  The latencies are compared by tenths of the run:
the median of each, and the slowest of them over the fastest.  Exit status 1 if memory grows by more, or the
slowest tenth takes over `--drift` of the fastest.  Python needs no packages.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SLACK = 1 << 20
# Not counted at the end: the text of the results is made there.
LAST_SAMPLES = 4


def resident(pid: int) -> int:
    """Bytes of the resident set; 0 once the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(lines[0].split()[1]) << 10 if lines else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuner", type=Path, required=True)
    parser.add_argument("--model", default="inception_v3")
    parser.add_argument("--inferences", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--drift", type=float, default=1.25)
    args = parser.parse_args()
    words = ["run", "--model", args.model, "--threads", str(args.threads), "--repeat", str(args.inferences), "--json"]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([args.tuner, *words], stdout=out)
        samples = []
        while process.poll() is None:
            samples.append(resident(process.pid))
            time.sleep(0.5)
        if process.returncode != 0:
            sys.exit(f"error: {' '.join(words)}: exit status {process.returncode}")
        out.seek(0)
        latencies = json.load(out)["latency_ms"]
    ready = samples[len(samples) // 10 : -LAST_SAMPLES]
    if len(ready) < 10:
        sys.exit(f"error: {len(samples)} samples of memory, expected more inferences")
    grown, allowed = max(ready) - ready[0], 2 * 8 * args.inferences + SLACK
    tenth = len(latencies) // 10
    medians = [statistics.median(latencies[at * tenth : (at + 1) * tenth]) for at in range(10)]
    drift = max(medians) / min(medians)
    print(f"{len(latencies)} inferences of {args.model} on {args.threads} threads: {ready[0] >> 20} MiB resident, "
          f"at most {grown >> 10} KiB more (allowed {allowed >> 10})")
    print("median of each tenth, ms:", " ".join(f"{median:.3f}" for median in medians), f"(slowest {drift:.2f} of fastest)")
    return 0 if grown <= allowed and drift <= args.drift else 1


if __name__ == "__main__":
    sys.exit(main())
