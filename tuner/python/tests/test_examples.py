"""The examples are run as they are."""

import os
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import golden
from inception_tuner import Session, list_images
from inception_tuner.batches import FeatureBatches

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(example, *arguments, **environment):
    command = [sys.executable, EXAMPLES / example, *map(str, arguments)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_tour_runs_cell_by_cell():
    runpy.run_path(str(EXAMPLES / "tour.py"))


def test_photographs_are_classified(photographs, weights):
    lines = run("classify.py", weights, *list_images(photographs)[:2]).splitlines()
    assert len(lines) == 10


@pytest.fixture(scope="module")
def expected(photographs):
    """The features of one process, by name."""
    files = list_images(photographs)
    features = Session.open(threads=1)(files).features
    return dict(zip([file.name for file in files], features))


def check(folder, expected, *bad):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    table = parquet.read_table(folder)
    names = [Path(path).name for path in table.column("path").to_pylist()]
    assert sorted(names) == sorted([*expected, *bad])
    for name, row, error in zip(names, table.column("features").to_pylist(), table.column("error").to_pylist()):
        if name in bad:
            assert np.isnan(row).all() and (name in error or "images[" in error)
        else:
            assert np.float32(row).tobytes() == expected[name].tobytes() and error is None


@pytest.mark.parametrize("framework, example", [("ray.data", "features_ray.py"), ("dask.dataframe", "features_dask.py")])
def test_two_workers_give_the_features_of_one_process(framework, example, photographs, expected, tmp_path):
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    out, bad = tmp_path / "out", photographs / "bad.png"
    out.mkdir()
    bad.write_bytes(b"no image")
    try:
        run(example, photographs, out, "--workers", 2, "--batch-size", 4)
    finally:
        bad.unlink()
    check(out, expected, "bad.png")


def test_a_killed_worker_costs_its_batch(photographs, expected, tmp_path):
    pytest.importorskip("ray.data", reason="ray.data is not installed")
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()
    program = Path(__file__).with_name("killed_worker.py")
    run(program, log, photographs, out, "--workers", 2, "--batch-size", 3, PYTHONPATH=str(EXAMPLES))
    check(out, expected)
    begun = Counter(log.read_text().splitlines())
    assert sorted(begun.values()) == [1] * (len(begun) - 1) + [2]


def test_batches_keep_their_columns_and_name_bad_images(photographs, expected):
    file = list_images(photographs)[0]
    batch = {"id": [7, 8], "image": [file, photographs / "missing.png"]}
    columns = FeatureBatches(column="image", threads=1)(batch)
    assert columns["id"] == [7, 8] and list(columns) == ["id", "features", "error"]
    assert columns["features"][0].tobytes() == expected[file.name].tobytes()
    assert columns["error"][0] is None and "missing.png: cannot read" in columns["error"][1]
    classes = FeatureBatches(column="image", threads=1, classes=3)(batch)
    assert [len(top) for top in classes["classes"]] == [3, 0]


def test_fid_of_two_workers_is_that_which_pytorch_fid_gave(recorded, recorded_weights, tmp_path):
    pytest.importorskip("ray.data", reason="ray.data is not installed")
    folders = [tmp_path / name for name in ("real", "fake")]
    for folder, images in zip(folders, golden.sides()):
        folder.mkdir()
        for number, pixels in enumerate(images):
            Image.fromarray(pixels).save(folder / f"{number:02}.png")
    text = run("fid_ray.py", *folders, "--weights", recorded_weights, "--batch-size", 32, "--dims", 64)
    assert float(text.split()[1]) == pytest.approx(float(recorded["distance"]), rel=1e-5, abs=0)
    assert text.endswith(f"of {golden.COUNT} and {golden.COUNT} images\n")
