#!/usr/bin/env python3
"""Show that `tuner compare --live --fail-above` is right as a gate: quiet on a build and its copy,
and failing on a build in which one kernel takes 10% longer.

    cargo build --release
    python3 bench-results/gate.py --out gate.json

The slower build is made from a copy of the sources in which `kernels/src/conv/direct.rs` waits for
a tenth of the time that each of its runs has taken (some minutes); `--slow PROGRAM` takes one that
is there.  Each of `--runs` times the tuner is compared with its copy and with the slower build,
alone and, with `--busy`, beside a process that keeps a core busy.  Exit status 1 if one of the
answers is wrong.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import ROOT, commit, write_whole

KERNEL = "kernels/src/conv/direct.rs"
CALL = "self.isa.vectorize(Run { step: self, units, io })"
SLOWER = """let start = std::time::Instant::now();
        self.isa.vectorize(Run { step: self, units, io });
        let end = start.elapsed().mul_f64(1.1);
        while start.elapsed() < end {
            std::hint::spin_loop();
        }"""


def build_slower(folder: Path) -> Path:
    """The tuner with direct convolutions that take 10% longer."""
    copy = folder / "sources"
    listed = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    source = copy / KERNEL
    text = source.read_text()
    if text.count(CALL) != 1:
        sys.exit(f"error: {source}: found `{CALL}` {text.count(CALL)} times, expected once")
    source.write_text(text.replace(CALL, SLOWER))
    command = ["cargo", "build", "--release", "-p", "tuner", "--target-dir", str(folder / "target")]
    subprocess.run(command, cwd=copy, check=True)
    return folder / "target/release/tuner"


def compare(args: argparse.Namespace, other: Path) -> dict:
    """One comparison: its exit status, its seconds, the network's ratio, and what is slower."""
    options = ["--live", "--fail-above", f"{args.fail_above}%", "--rounds", str(args.rounds), "--json"]
    options += ["--plan", str(args.plan)] if args.plan else ["--threads", str(args.threads)]
    start = time.monotonic()
    command = [str(args.tuner), "compare", str(args.tuner), str(other), *options]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if ran.returncode not in (0, 1):
        sys.exit(f"error: {' '.join(command)}: {ran.stderr.strip()}")
    found = json.loads(ran.stdout)["comparisons"][0]
    rows = [row for row in found["problems"] if row["ratio"]]
    return {
        "status": ran.returncode,
        "seconds": round(time.monotonic() - start, 1),
        "network": found["network"]["ratio"],
        "slower": sum(row["ratio"][1] > 1 + args.fail_above / 100 for row in rows),
        "problems": len(found["problems"]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuner", type=Path, default=ROOT / "target/release/tuner")
    parser.add_argument("--slow", type=Path, help="the slower build, in place of making one")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plan", type=Path, help="the plan of all; by default that which `run` takes")
    parser.add_argument("--fail-above", type=float, default=3.0)
    parser.add_argument("--busy", action="store_true", help="beside a process that keeps a core busy as well")
    parser.add_argument("--out", type=Path, required=True, help="the results as JSON")
    args = parser.parse_args()
    results = {"commit": commit(), "rounds": args.rounds, "threads": args.threads, "runs": []}
    with tempfile.TemporaryDirectory(prefix="gate-") as name:
        folder = Path(name)
        copy = shutil.copy(args.tuner, folder / "copy")
        slow = args.slow or build_slower(folder)
        for load in ["alone", "busy"][: 2 if args.busy else 1]:
            spin = [sys.executable, "-c", "while True: pass"]
            other = subprocess.Popen(spin) if load == "busy" else None
            try:
                for run in range(args.runs):
                    for build, path, expected in (("copy", copy, 0), ("slow", slow, 1)):
                        found = {"load": load, "build": build, **compare(args, path)}
                        found["right"] = found["status"] == expected
                        results["runs"].append(found)
                        print(run + 1, json.dumps(found), flush=True)
                        write_whole(args.out, json.dumps(results, indent=1) + "\n")
            finally:
                if other:
                    other.kill()
    for load in ("alone", "busy"):
        for build in ("copy", "slow"):
            of = [run for run in results["runs"] if (run["load"], run["build"]) == (load, build)]
            if of:
                print(f"{load}, {build}: {sum(run['right'] for run in of)} of {len(of)} right")
    return 0 if all(run["right"] for run in results["runs"]) else 1


if __name__ == "__main__":
    sys.exit(main())
