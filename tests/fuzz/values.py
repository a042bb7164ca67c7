#!/usr/bin/env python3
"""Compare the values of files with changed bytes with those of the libraries that define the formats.

    python tests/fuzz/values.py PROGRAM [--count 3000] [--seed 1]

needs h5py, numpy and safetensors.  PROGRAM is the fuzz target `values`, which prints the values of files
(tests/fuzz/README.md).  Valid files of tests/fuzz/corpus are changed at random.  Where both readers take the
changed file, each tensor that both have must have the same shape and the same values, bit by bit; of values
that are widened to f32 or rounded to it, all NaN are one.

The last line counts files and values; the exit status is 0 if all are equal.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CORPUS = Path(__file__).parent / "corpus"
TARGETS = "safetensors", "hdf5", "npy"
BATCH = 100
# What a batch takes at most; HDF5's own library does not end on some files.
SECONDS = 30


def changed(content: bytes, rng: random.Random) -> bytes:
    """A file with one to six changes: of a byte, of a bit, or of some bytes that move."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at] = rng.choice([0, 1, 2, 127, 255])
            case _:
                length, to = rng.randint(1, 8), rng.randrange(len(data))
                data[to : to + length] = data[at : at + length][: len(data) - to]
    return bytes(data)


def item(name: str, array: np.ndarray) -> str | None:
    """A tensor as `values` prints it; whether its values are of another type stands before its shape."""
    if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
        return None
    kind = "" if array.dtype.newbyteorder("=") == np.float32 else "~"
    with np.errstate(all="ignore"):
        values = np.ascontiguousarray(array, dtype="<f4")
    return f"{name.encode().hex()}={kind}{','.join(map(str, array.shape))}={values.tobytes().hex()}"


def read(path: Path) -> list[str | None]:
    """All tensors of a file, by the library of its format."""
    if path.name.startswith("hdf5"):
        return read_hdf5(path)
    if path.name.startswith("npy"):
        return [item("", np.load(path, allow_pickle=False))]
    from safetensors.numpy import load

    return [item(name, value) for name, value in load(path.read_bytes()).items()]


def read_hdf5(path: Path) -> list[str | None]:
    """The datasets that can be read."""
    import h5py

    items = []
    with h5py.File(path, "r") as file:

        def visit(name: str, found: object) -> None:
            try:
                if isinstance(found, h5py.Dataset) and found.size < 1 << 20:
                    items.append(item(name, np.asarray(found[()])))
            except Exception:
                pass

        file.visititems(visit)
    return items


def print_all(paths: list[str]) -> None:
    """A line a file, as `values` prints it."""
    for path in paths:
        try:
            items = [item for item in read(Path(path)) if item is not None]
            print("\t".join(["ok", *items]), flush=True)
        except Exception:
            print("error", flush=True)


def lines(command: list[str], paths: list[Path]) -> tuple[list[str], int]:
    """What a reader prints of each file, and how often it died or did not end."""
    found, deaths = [], 0
    while len(found) < len(paths):
        rest = [str(path) for path in paths[len(found) :]]
        with tempfile.TemporaryFile("w+") as out:
            try:
                subprocess.run(command + rest, stdout=out, stderr=subprocess.DEVNULL, timeout=SECONDS)
            except subprocess.TimeoutExpired:
                pass
            out.seek(0)
            complete = [line for line in out.read().split("\n")[:-1] if line.startswith(("ok", "error"))]
        found += complete
        if len(complete) < len(rest):
            found.append("died")
            deaths += 1
    return found, deaths


def tensors(line: str) -> dict[str, list[str]]:
    """Shape and values of each tensor of a line."""
    return {name: rest for name, *rest in (item.split("=") for item in line.split("\t")[1:])}


def differ(ours: list[str], theirs: list[str]) -> bool:
    """Whether two tensors are not equal."""
    if ours[0] != theirs[0].removeprefix("~"):
        return True
    if ours[1] == theirs[1]:
        return False
    pair = [np.frombuffer(bytes.fromhex(values), "<f4") for values in (ours[1], theirs[1])]
    return not (theirs[0].startswith("~") and np.array_equal(*pair, equal_nan=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng, both, values, wrong, dead = random.Random(given.seed), 0, 0, 0, 0
    taken = {"ours": 0, "theirs": 0}
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, given.count, BATCH):
            paths = []
            for number in range(start, min(start + BATCH, given.count)):
                target = TARGETS[number % len(TARGETS)]
                seed = rng.choice(sorted((CORPUS / target).iterdir()))
                paths.append(Path(folder) / f"{target}-{number}")
                paths[-1].write_bytes(changed(seed.read_bytes(), rng))
            ours, died = lines([given.program], paths)
            theirs, _ = lines([sys.executable, __file__, "--read"], paths)
            dead += died
            for path, own, other in zip(paths, ours, theirs):
                if own == "died":
                    kept = Path(tempfile.gettempdir()) / f"died-{path.name}"
                    kept.write_bytes(path.read_bytes())
                    print(f"{kept}: the program died")
                taken["ours"] += own.startswith("ok")
                taken["theirs"] += other.startswith("ok")
                if not (own.startswith("ok") and other.startswith("ok")):
                    continue
                both += 1
                reference = tensors(other)
                for name, tensor in tensors(own).items():
                    if name not in reference:
                        continue
                    values += len(tensor[1]) // 8
                    if differ(tensor, reference[name]):
                        wrong += 1
                        kept = Path(tempfile.gettempdir()) / f"different-{path.name}"
                        kept.write_bytes(path.read_bytes())
                        print(f"{kept}: tensor {bytes.fromhex(name)!r}: {tensor}, expected {reference[name]}")
            [path.unlink() for path in paths]
    print(f"{given.count} files, taken by this project {taken['ours']}, by the libraries {taken['theirs']}, by both {both};")
    print(f"{values} values compared, {wrong} tensors differ, the program died {dead} times")
    return 1 if wrong or dead else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        print_all(sys.argv[2:])
    else:
        sys.exit(main())
