"""Whole processes over a folder of photographs, in turn: `compare.py --folder`.

Each contender reads, decodes and resizes the same files and gives 2048 features of each:

* ours: `tuner run --image FOLDER --features --output y.npy`;
* ours without decoding: the same from preprocessed images (`--input`), which is inference alone;
* pytorch-fid: `get_activations` of its own code, with random weights, as `python -m pytorch_fid` calls it;
* ONNX Runtime: Pillow decodes and resizes in a thread pool while batches run.

A time is that of a process from start to end. Its work is the time on all cores, of its children too.
"""

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH = 8
PHOTOGRAPH = (640, 427)


def photographs(folder: Path, count: int) -> None:
    """Photographs of 640x427: those of scikit-image and scikit-learn, shifted and with noise."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    folder.mkdir(parents=True, exist_ok=True)
    sources = [Image.fromarray(image).resize(PHOTOGRAPH) for image in load_sample_images().images]
    random_numbers = np.random.default_rng(5)
    for number in range(count):
        pixels = np.asarray(sources[number % len(sources)]).astype(np.int16)
        shift = tuple(int(random_numbers.integers(side)) for side in pixels.shape[:2])
        pixels = np.roll(pixels, shift, (0, 1)) + random_numbers.integers(-4, 5, pixels.shape)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(folder / f"{number:06}.jpg", quality=90)


# --- inside a peer's interpreter -------------------------------------------------------


def serve_pytorch_fid(folder: Path, threads: int) -> None:
    import pytorch_fid.inception as inception
    import torch
    from pytorch_fid.fid_score import get_activations

    torch.set_num_threads(threads)
    network = inception._inception_v3(num_classes=1008, aux_logits=False)
    network.Mixed_5b = inception.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = inception.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = inception.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = inception.FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = inception.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = inception.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = inception.FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = inception.FIDInceptionE_1(1280)
    network.Mixed_7c = inception.FIDInceptionE_2(2048)
    state = network.state_dict()
    inception.load_state_dict_from_url = lambda *_, **__: state
    model = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]])
    files = sorted(str(path) for path in folder.glob("*.jpg"))
    features = get_activations(files, model, batch_size=50, dims=2048, device="cpu", num_workers=threads)
    assert features.shape == (len(files), 2048)


def serve_ort(folder: Path, threads: int, onnx: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import onnxruntime as ort
    from PIL import Image

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    channels_first = given.shape[1] == 3

    def load(path: Path):
        image = Image.open(path).convert("RGB").resize((299, 299), Image.Resampling.BILINEAR)
        return np.asarray(image, dtype=np.float32) / 127.5 - 1

    files = sorted(folder.glob("*.jpg"))
    with ThreadPoolExecutor(threads) as pool:
        ahead = [pool.submit(load, path) for path in files[: 4 * BATCH]]
        for start in range(0, len(files), BATCH):
            batch = [ahead.pop(0).result() for _ in files[start : start + BATCH]]
            following = files[start + 4 * BATCH : start + 5 * BATCH]
            ahead += [pool.submit(load, path) for path in following]
            images = np.stack(batch)
            images = images.transpose(0, 3, 1, 2).copy() if channels_first else images
            session.run(None, {given.name: images})


# --- measuring -------------------------------------------------------------------------


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds of a process, and those that it worked on all cores."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        tail = " | ".join(result.stderr.strip().splitlines()[-2:])
        raise OSError(f"`{' '.join(command[:6])} ..` exited with {result.returncode}: {tail}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare_folder(args, environment: dict[str, str], peers: dict[str, list[str]]) -> dict:
    """Runs all contenders in turn; the seconds of each round and their medians."""
    folder, threads = args.folder, args.threads[-1]
    weights = ["--weights", str(args.weights)] if args.weights else []
    count = len(list(folder.glob("*.jpg")))
    order, samples = random.Random(1), {}
    with tempfile.TemporaryDirectory() as temporary:
        inputs, result = Path(temporary) / "x.npy", Path(temporary) / "y.npy"
        run = [str(args.tuner), "run", "--model", "inception_v3", "--threads", str(threads), "--top", "0"]
        run += [*weights, "--features", "--output", str(result)]
        subprocess.run(
            [*run, "--image", str(folder), "--write-input", str(inputs)],
            check=True, capture_output=True, env=environment,
        )
        contenders = {"ours": [*run, "--image", str(folder)], "ours, inference alone": [*run, "--input", str(inputs)]}
        contenders |= peers
        for number in range(args.rounds):
            for name in order.sample(list(contenders), len(contenders)):
                samples.setdefault(name, []).append(timed(contenders[name], environment))
                print(f"  round {number + 1}: {name} {samples[name][-1][0]:.1f} s", file=sys.stderr, flush=True)
    seconds = {name: statistics.median(pair[0] for pair in pairs) for name, pairs in samples.items()}
    work = {name: statistics.median(pair[1] for pair in pairs) for name, pairs in samples.items()}
    ratio = {
        name: statistics.median(ours[0] / other[0] for ours, other in zip(samples["ours"], samples[name]))
        for name in samples
    }
    # What is possible: inference alone, or all work shared out to the cores.
    possible = max(seconds["ours, inference alone"], work["ours"] / threads)
    return {
        "folder": folder.name,
        "images": count,
        "threads": threads,
        "rounds": args.rounds,
        "seconds": seconds,
        "work_s": work,
        "ours_to": ratio,
        "over_possible": seconds["ours"] / possible,
        "samples": samples,
    }


def folder_markdown(report: dict) -> str:
    result = report["folder"]
    lines = [
        f"# {result['images']} photographs, whole processes",
        "",
        f"{report['date']}, {report['machine']['cpu']}, {result['threads']} threads, {result['rounds']} rounds in turn,",
        f"commit {report['commit']}: `{report['command']}`.",
        "",
        "| contender | s | images/s | work of all cores, s | ours takes |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, seconds in result["seconds"].items():
        rate, ratio = result["images"] / seconds, result["ours_to"][name]
        lines.append(f"| {name} | {seconds:.1f} | {rate:.1f} | {result['work_s'][name]:.1f} | {ratio:.2f} |")
    lines += [
        "",
        f"Ours takes {result['over_possible']:.2f} of the larger of inference alone and all its work shared out to the "
        "cores.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1] == "--photographs":
        photographs(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1] == "--pytorch-fid":
        serve_pytorch_fid(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1] == "--ort":
        serve_ort(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        print(json.dumps({"error": "called by compare.py"}))
        os._exit(2)
