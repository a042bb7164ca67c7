"""Images, sessions and the program `tuner` for the tests."""

import json
import os
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image

import golden
import inception_tuner

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session", autouse=True)
def results(tmp_path_factory):
    """A folder of results of its own: no plan of the user's changes what is tested."""
    folder = tmp_path_factory.mktemp("results")
    os.environ["TUNER_RESULTS"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def program():
    """The program `tuner`, which CI builds before: `TUNER_PROGRAM`, or that of the target folder."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    path = pathlib.Path(os.environ.get("TUNER_PROGRAM", target / "release" / "tuner"))
    if not path.exists():
        pytest.skip(f"no program at {path}: `cargo build --release --bin tuner` makes it")
    return path


@pytest.fixture(scope="session")
def weights():
    """Trained weights, which `tests/trained/fetch.py` puts into the folder that `INCEPTION_V3_TRAINED` names."""
    path = pathlib.Path(os.environ.get("INCEPTION_V3_TRAINED", "")) / "inception_v3.safetensors"
    if not path.exists():
        pytest.skip("no trained weights: INCEPTION_V3_TRAINED names no folder of them")
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Images of several sizes and formats, 13 files in three folders."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(1)
    for number in range(13):
        height, width = random.integers(80, 500, 2)
        y, x = np.mgrid[0:height, 0:width]
        waves = [128 + 100 * np.sin(x / (3 + number)) * np.cos(y / (5 + c)) for c in range(3)]
        image = Image.fromarray(np.dstack(waves).astype(np.uint8))
        into = folder / ["", "b", "b/c"][number % 3]
        into.mkdir(exist_ok=True)
        if number % 2:
            image.save(into / f"{number:02}.png")
        else:
            image.save(into / f"{number:02}.jpg", quality=90)
    return folder


@pytest.fixture(scope="session")
def session():
    """The whole network by the built-in choice on two threads, with synthetic weights."""
    return inception_tuner.Session.open(plan=None, threads=2, batch=2)


@pytest.fixture(scope="session")
def block():
    """One block, which takes milliseconds."""
    return inception_tuner.Session.open(model="mixed10", plan=None, threads=1)


@pytest.fixture(scope="session")
def recorded():
    """What pytorch-fid and torch-fidelity gave, see golden.py."""
    with np.load(golden.FILE) as file:
        return dict(file)


@pytest.fixture(scope="session")
def recorded_weights(recorded, tmp_path_factory):
    """The weights that it was given for, as .safetensors."""
    shapes = [[int(size) for size in shape.split()] for shape in recorded["shapes"]]
    header, data = {}, b""
    for name, array in golden.state(recorded["names"], shapes).items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path = tmp_path_factory.mktemp("golden") / "fid.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.fixture
def preprocessed():
    """N preprocessed images of the whole network."""

    def make(count, seed=1):
        return np.random.default_rng(seed).uniform(-1, 1, (count, 299, 299, 3)).astype(np.float32)

    return make
