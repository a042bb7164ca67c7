#!/usr/bin/env python3
"""Check `tuner check` against convolutions computed in float64 by someone else.

    python tests/shapes/torch_shapes.py FOLDER [--tuner PATH] [--count 30] [--seed 1]

needs numpy; torch computes the expected outputs where it is installed, else numpy.
Contract: for each of `count` random shapes FOLDER/<shape>/ gets X.npy [N,H,W,C],
W.npy [R,S,C,K], Y.npy [N,OH,OW,K] (float32, Y rounded from float64) and bad.npy, which
is Y with one element off by 1% of its largest magnitude; FOLDER/shapes.txt lists the
shapes.  A shape is written n1h17w17c768k192r1s7, then u2 for stride 2, then p0q3 for the
padding in height and width unless it is the default: (r-1)/2 and (s-1)/2 for stride 1
and odd r and s, else 0.

With --tuner, each shape is checked twice: with Y the exit code must be 0, with bad 1.
The last line counts the checks; the exit code is 0 if all went well.
"""

import argparse
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_MACS = 60_000_000


@dataclass(frozen=True)
class Shape:
    n: int
    h: int
    w: int
    c: int
    k: int
    r: int
    s: int
    u: int
    p: int
    q: int

    @property
    def out(self) -> tuple[int, int]:
        return (self.h + 2 * self.p - self.r) // self.u + 1, (self.w + 2 * self.q - self.s) // self.u + 1

    def is_valid(self) -> bool:
        """Some output, no window wholly in the padding, and quickly computed."""
        fits = self.h + 2 * self.p >= self.r and self.w + 2 * self.q >= self.s
        macs = self.n * self.c * self.k * self.r * self.s * self.out[0] * self.out[1]
        return fits and self.p < self.r and self.q < self.s and macs <= MAX_MACS

    def __str__(self) -> str:
        text = f"n{self.n}h{self.h}w{self.w}c{self.c}k{self.k}r{self.r}s{self.s}"
        text += f"u{self.u}" if self.u != 1 else ""
        odd = self.r % 2 == 1 and self.s % 2 == 1
        default = ((self.r - 1) // 2, (self.s - 1) // 2) if self.u == 1 and odd else (0, 0)
        explicit = (self.p, self.q) != default or (self.u == 1 and not odd)
        return text + (f"p{self.p}q{self.q}" if explicit else "")


def random_shapes(count: int, seed: int) -> list[Shape]:
    """`count` different shapes, InceptionV3's filter sizes and others, sizes often not round."""
    rng = random.Random(seed)
    filters = [(1, 1), (3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1), (7, 7), (2, 2), (4, 3), (2, 5)]
    channels = [1, 3, 4, 7, 16, 17, 31, 32, 48, 63, 64, 80, 96, 100, 128, 160, 192, 257, 320]
    shapes: dict[Shape, None] = {}
    while len(shapes) < count:
        r, s = filters[len(shapes) % len(filters)]
        u = rng.choice([1, 1, 2])
        same = ((r - 1) // 2, (s - 1) // 2)
        p, q = rng.choice([same, same, (0, 0), (rng.randrange(r), rng.randrange(s))])
        h, w = rng.randint(1, 40), rng.randint(1, 40)
        shape = Shape(rng.choice([1, 1, 2, 3]), h, w, rng.choice(channels), rng.choice(channels), r, s, u, p, q)
        if shape.is_valid():
            shapes[shape] = None
    return list(shapes)


def convolve_numpy(x: np.ndarray, w: np.ndarray, shape: Shape) -> np.ndarray:
    """The convolution (cross-correlation, as in all frameworks) in float64."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (shape.p, shape.p), (shape.q, shape.q), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (shape.r, shape.s), axis=(1, 2))
    windows = windows[:, :: shape.u, :: shape.u]  # [n, oh, ow, c, r, s]
    return np.tensordot(windows, w.astype(np.float64), axes=([4, 5, 3], [0, 1, 2]))


def convolve_torch(x: np.ndarray, w: np.ndarray, shape: Shape) -> np.ndarray:
    import torch

    nchw = torch.from_numpy(x.astype(np.float64)).permute(0, 3, 1, 2)
    oihw = torch.from_numpy(w.astype(np.float64)).permute(3, 2, 0, 1)
    y = torch.nn.functional.conv2d(nchw, oihw, stride=shape.u, padding=(shape.p, shape.q))
    return y.permute(0, 2, 3, 1).numpy()


def choose_convolve():
    try:
        import torch

        return convolve_torch, f"torch {torch.__version__}"
    except (ImportError, OSError, ValueError):
        return convolve_numpy, f"numpy {np.__version__}"


def write_case(folder: Path, shape: Shape, seed: int, convolve) -> None:
    """Write X, W, Y and bad into `folder`; a pure function of shape and seed."""
    rng = np.random.default_rng([seed, *vars(shape).values()])
    x = rng.uniform(-1, 1, (shape.n, shape.h, shape.w, shape.c)).astype(np.float32)
    w = rng.uniform(-1, 1, (shape.r, shape.s, shape.c, shape.k)).astype(np.float32)
    y = np.ascontiguousarray(convolve(x, w, shape), dtype=np.float32)
    assert y.shape == (shape.n, *shape.out, shape.k), (shape, y.shape)
    bad = y.copy()
    bad.flat[rng.integers(bad.size)] += np.float32(0.01) * np.abs(y).max()
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("X", x), ("W", w), ("Y", y), ("bad", bad)):
        np.save(folder / f"{name}.npy", array)


def check(tuner: Path, folder: Path, shape: Shape, expect: str) -> bool:
    """Run `tuner check`; say so if the exit code is not the one due."""
    files = {flag: str(folder / f"{name}.npy") for flag, name in (("input", "X"), ("filter", "W"), ("expect", expect))}
    command = [str(tuner), "check", "--shape", str(shape)]
    command += [part for flag, path in files.items() for part in (f"--{flag}", path)]
    result = subprocess.run(command, capture_output=True, text=True)
    due = 0 if expect == "Y" else 1
    if result.returncode != due:
        print(f"FAILED {shape} with {expect}.npy: exit code {result.returncode}, not {due}")
        print((result.stdout + result.stderr).rstrip()[-1000:])
    return result.returncode == due


def main() -> int:
    parser = argparse.ArgumentParser(description="check the tuner against convolutions computed elsewhere")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tuner", type=Path)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    convolve, by = choose_convolve()
    shapes = random_shapes(args.count, args.seed)
    for shape in shapes:
        write_case(args.folder / str(shape), shape, args.seed, convolve)
    (args.folder / "shapes.txt").write_text("".join(f"{shape}\n" for shape in shapes))
    print(f"wrote {len(shapes)} shapes into {args.folder}, expected outputs by {by}")
    if not args.tuner:
        return 0
    done = [check(args.tuner, args.folder / str(shape), shape, expect) for shape in shapes for expect in ("Y", "bad")]
    print(f"{done.count(True)} passed, {done.count(False)} failed")
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
