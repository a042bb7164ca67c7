"""Whole processes over a folder of photographs, in turn: `compare.py --folder`.

Each contender reads, decodes and resizes the same files and gives 2048 features of each:

* ours: `tuner run --image FOLDER --features --output y.npy`;
* ours without decoding: the same from preprocessed images (`--input`), which is inference alone;
* pytorch-fid: `get_activations` of its own code, with random weights, as `python -m pytorch_fid` calls it;
* ONNX Runtime: Pillow decodes and resizes in a thread pool while batches run.

With `--fake DIR2` the distance of two folders instead, by the same random weights: `tuner fid` and what
`python -m pytorch_fid` calls.

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


def noisy(folder: Path, out: Path) -> None:
    """Noisy copies of photographs."""
    import numpy as np
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    random_numbers = np.random.default_rng(6)
    for path in sorted(folder.glob("*.jpg")):
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(np.int16)
        pixels = pixels + random_numbers.integers(-30, 31, pixels.shape)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out / path.name, quality=90)


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


def pytorch_fid_network(weights: Path | None = None):
    """pytorch-fid's module, on random weights that keep the size of activations; they are written where a path is given
    that is not there yet."""
    import pytorch_fid.inception as inception
    import torch
    import torchvision

    if weights is None or not weights.exists():
        plain = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
        torch.manual_seed(1)
        for layer in plain.modules():
            if isinstance(layer, torch.nn.Conv2d):
                limit = (6 / layer.weight[0].numel()) ** 0.5
                torch.nn.init.uniform_(layer.weight, -limit, limit)
        state = plain.state_dict()
        if weights is not None:
            torch.save(state, weights)
    else:
        state = torch.load(weights)
    inception.load_state_dict_from_url = lambda *_, **__: state
    return inception


def serve_pytorch_fid(folder: Path, threads: int) -> None:
    import torch
    from pytorch_fid.fid_score import get_activations

    torch.set_num_threads(threads)
    model = pytorch_fid_network().InceptionV3([3])
    files = sorted(str(path) for path in folder.glob("*.jpg"))
    features = get_activations(files, model, batch_size=50, dims=2048, device="cpu", num_workers=threads)
    assert features.shape == (len(files), 2048)


def serve_pytorch_distance(real: Path, fake: Path, threads: int, weights: Path) -> None:
    import torch
    from pytorch_fid.fid_score import calculate_fid_given_paths

    torch.set_num_threads(threads)
    pytorch_fid_network(weights)
    try:
        print(calculate_fid_given_paths([str(real), str(fake)], 50, "cpu", 2048, num_workers=threads))
    except ValueError as error:
        # Of singular covariances its root has no digits left.
        print(f"none:{str(error).replace(' ', '-')}")


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


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float, str]:
    """Seconds of a process, those that it worked on all cores, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        tail = " | ".join(result.stderr.strip().splitlines()[-2:])
        raise OSError(f"`{' '.join(command[:6])} ..` exited with {result.returncode}: {tail}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result.stdout


def in_turn(contenders: dict, rounds: int, threads: int, environment: dict[str, str]) -> dict:
    """Runs all contenders in turn, the first of which is ours; seconds of each round and their medians."""
    order, samples, printed = random.Random(1), {}, {}
    for number in range(rounds):
        for name in order.sample(list(contenders), len(contenders)):
            *sample, printed[name] = timed(contenders[name], environment)
            samples.setdefault(name, []).append(sample)
            print(f"  round {number + 1}: {name} {sample[0]:.1f} s", file=sys.stderr, flush=True)
    ours = next(iter(contenders))
    return {
        "threads": threads,
        "rounds": rounds,
        "seconds": {name: statistics.median(pair[0] for pair in samples[name]) for name in contenders},
        "work_s": {name: statistics.median(pair[1] for pair in samples[name]) for name in contenders},
        "ours_to": {
            name: statistics.median(own[0] / other[0] for own, other in zip(samples[ours], samples[name]))
            for name in contenders
        },
        "samples": samples,
        "printed": printed,
    }


def compare_folder(args, environment: dict[str, str], peers: dict[str, list[str]]) -> dict:
    """Features of a folder by all contenders, and how far ours is from what is possible."""
    folder, threads = args.folder, args.threads[-1]
    weights = ["--weights", str(args.weights)] if args.weights else []
    with tempfile.TemporaryDirectory() as temporary:
        inputs, result = Path(temporary) / "x.npy", Path(temporary) / "y.npy"
        run = [str(args.tuner), "run", "--model", "inception_v3", "--threads", str(threads), "--top", "0"]
        run += [*weights, "--features", "--output", str(result)]
        subprocess.run(
            [*run, "--image", str(folder), "--write-input", str(inputs)],
            check=True, capture_output=True, env=environment,
        )
        contenders = {"ours": [*run, "--image", str(folder)], "ours, inference alone": [*run, "--input", str(inputs)]}
        result = in_turn(contenders | peers, args.rounds, threads, environment)
    # What is possible: inference alone, or all work shared out to the cores.
    possible = max(result["seconds"]["ours, inference alone"], result["work_s"]["ours"] / threads)
    count = len(list(folder.glob("*.jpg")))
    over = result["seconds"]["ours"] / possible
    del result["printed"]
    return {"what": f"Features of {count} photographs", "images": count, "over_possible": over, **result}


def compare_distance(args, environment: dict[str, str]) -> dict:
    """The distance of two folders, by ours and by pytorch-fid."""
    real, fake, threads = args.folder, args.fake, args.threads[-1]
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / "w.pth"
        theirs = [args.torch_python, __file__]
        subprocess.run([*theirs, "--fid-weights", str(weights)], check=True, capture_output=True, env=environment)
        ours = [str(args.tuner), "fid", str(real), str(fake), "--weights", str(weights), "--threads", str(threads)]
        contenders = {"ours": ours}
        if args.precision == "bf16":
            contenders = {"ours, bf16": [*ours, "--precision", "bf16"], **contenders}
        contenders["pytorch-fid"] = [*theirs, "--distance", str(real), str(fake), str(threads), str(weights)]
        result = in_turn(contenders, args.rounds, threads, environment)
    count = sum(len(list(folder.glob("*.jpg"))) for folder in (real, fake))
    found = {name: text.split()[text.startswith("FID")] for name, text in result.pop("printed").items()}
    return {"what": f"The FID of two folders, {count} photographs", "images": count, "fid": found, **result}


def folder_markdown(report: dict) -> str:
    result = report["folder"]
    distances = result.get("fid", {})
    lines = [
        f"# {result['what']}, whole processes",
        "",
        f"{report['date']}, {report['machine']['cpu']}, {result['threads']} threads, {result['rounds']} rounds in turn,",
        f"commit {report['commit']}: `{report['command']}`.",
        "",
        f"| contender | s | images/s | work of all cores, s | ours takes |{' FID |' * bool(distances)}",
        f"|---|--:|--:|--:|--:|{'--:|' * bool(distances)}",
    ]
    for name, seconds in result["seconds"].items():
        rate, ratio = result["images"] / seconds, result["ours_to"][name]
        distance = f" {distances[name]} |" if distances else ""
        lines.append(f"| {name} | {seconds:.1f} | {rate:.1f} | {result['work_s'][name]:.1f} | {ratio:.2f} |{distance}")
    if "over_possible" in result:
        lines += [
            "",
            f"Ours takes {result['over_possible']:.2f} of the larger of inference alone and all its work shared out to "
            "the cores.",
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1] == "--photographs":
        photographs(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1] == "--pytorch-fid":
        serve_pytorch_fid(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1] == "--noisy":
        noisy(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1] == "--fid-weights":
        pytorch_fid_network(Path(sys.argv[2]))
    elif sys.argv[1] == "--distance":
        serve_pytorch_distance(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    elif sys.argv[1] == "--ort":
        serve_ort(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        print(json.dumps({"error": "called by compare.py"}))
        os._exit(2)
