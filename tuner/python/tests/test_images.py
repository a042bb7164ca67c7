"""What a session takes as images, against numpy, Pillow and the program."""

import subprocess
import weakref

import numpy as np
import pytest
from PIL import Image

from inception_tuner import ImageError, Session, list_images


def same(a, b):
    """Whether two arrays are the same bit for bit."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def test_the_program_gives_the_same_features_and_probabilities(program, photographs, session, tmp_path):
    files = list_images(photographs)
    output = session(files)
    for option, found in ((["--features"], output.features), ([], output.probabilities)):
        written = tmp_path / "y.npy"
        command = [program, "run", "--model", "inception_v3", "--results", tmp_path, "--threads", "2"]
        command += ["--batch", "2", *option, "--output", written, "--image", *files]
        subprocess.run(command, check=True, capture_output=True)
        assert same(found, np.load(written))


def test_paths_bytes_arrays_and_pil_images_of_the_same_pixels_are_the_same(photographs, session):
    files = [file for file in list_images(photographs) if file.suffix == ".png"]
    images = [Image.open(file) for file in files]
    expected = session(files).features
    mixed = [files[0], str(files[1]), images[2], np.asarray(images[3]), files[4].read_bytes(), images[5]]
    for given in ([str(file) for file in files], images, [np.asarray(image) for image in images], mixed):
        assert same(session(given).features, expected)
    assert same(session(files[0]).features, expected[:1])
    assert same(session(Image.open(files[0])).features, expected[:1])
    assert same(session(image for image in mixed).features, expected)


def test_pixels_of_the_networks_size_are_what_numpy_makes_of_them(session):
    pixels = np.random.default_rng(2).integers(0, 256, (3, 299, 299, 3), dtype=np.uint8)
    values = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    assert same(session(pixels).features, session(values).features)
    assert same(session(pixels[0]).features, session(values[0]).features)
    assert same(session(list(values)).features, session(values).features)


def test_resized_images_are_what_pillow_makes_of_them_in_float32(photographs, session):
    file = next(file for file in list_images(photographs) if file.suffix == ".png")
    image = Image.open(file)
    channels = [Image.fromarray(np.asarray(image)[..., c].astype(np.float32)) for c in range(3)]
    resized = np.dstack([c.resize((299, 299), Image.Resampling.BILINEAR) for c in channels])
    expected = session((resized / 127.5 - 1)[None].astype(np.float32)).features
    found = session(file).features
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_modes_of_pillow_are_what_a_file_of_them_is(mode, session, tmp_path):
    y, x = np.mgrid[0:90, 0:110]
    image = Image.fromarray(np.dstack([x * 2, y * 2, x + y]).astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray(((x * 500).astype(np.uint16)))
    else:
        image = image.convert(mode)
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(file)
    from_file, in_memory = session(file).features, session(image).features
    assert np.linalg.norm(from_file - in_memory) < 2e-2 * np.linalg.norm(from_file)
    if mode not in ("CMYK", "LA"):
        assert same(from_file, in_memory)


def test_a_preset_and_its_changes_are_what_the_program_does(program, photographs, tmp_path):
    files = list_images(photographs)[:3]
    for given, options in (
        ("torchvision", ["--preprocess", "torchvision"]),
        ({"resize": 400, "crop": 299, "mean": 0.4, "std": [0.2, 0.3, 0.4], "exif": True},
         ["--resize", "400", "--crop", "299", "--mean", "0.4", "--std", "0.2,0.3,0.4", "--exif"]),
        ({"preset": "timm", "interpolation": "bilinear"}, ["--preprocess", "timm", "--interpolation", "bilinear"]),
    ):  # fmt: skip
        session = Session.open(plan=None, threads=1, preprocess=given)
        written = tmp_path / "y.npy"
        command = [program, "run", "--model", "inception_v3", "--results", tmp_path, "--threads", "1"]
        command += [*options, "--features", "--output", written, "--image", *files]
        subprocess.run(command, check=True, capture_output=True)
        assert same(session(files).features, np.load(written))


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"preset": "kerass"}, "preprocess: preset is `kerass`, expected one of keras"),
        ({"size": 3}, "preprocess: found `size`, expected some of preset"),
        ({"std": 0.0}, "preprocess: expected finite means"),
        ({"crop": 0}, "preprocess: found a side of 0"),
        ({"interpolation": "cubic"}, "preprocess: interpolation is `cubic`, expected one of"),
    ],
)
def test_a_preprocessing_that_is_none_is_refused(wrong, text):
    with pytest.raises(ValueError, match=text):
        Session.open(model="stem", plan=None, preprocess=wrong)


def test_layouts_that_are_not_contiguous_are_read_too(preprocessed, session):
    values = preprocessed(3)
    expected = session(values).features
    transposed = np.ascontiguousarray(values.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert not transposed.flags.c_contiguous
    assert same(session(transposed).features, expected)
    assert same(session(np.repeat(values, 2, axis=0)[::2]).features, expected)
    assert same(session(values.astype(">f4")).features, expected)
    values.flags.writeable = False
    assert same(session(values).features, expected)


@pytest.mark.parametrize(
    "wrong, kind, text",
    [
        (np.zeros((1, 298, 299, 3), np.float32), ValueError, r"found float32 of shape \[1, 298, 299, 3\]"),
        (np.zeros((1, 299, 299, 3)), ValueError, "found type float64, expected float32"),
        ([np.zeros((299, 299), np.float32)], ValueError, r"images\[0\]: found float32 of shape"),
        ([np.zeros((9, 9, 3), np.int32)], ValueError, r"images\[0\]: found type int32"),
        ([np.zeros((9, 9, 7), np.uint8)], ValueError, r"images\[0\]: found shape \[9, 9, 7\]"),
        ([np.zeros((0, 9, 3), np.uint8)], ImageError, r"images\[0\]: found an image of 9x0"),
        ([3], TypeError, r"images\[0\]: found int, expected a path"),
        (3, TypeError, r"images\[0\]: found int, expected a path"),
        ([b"no image"], ImageError, r"images\[0\]: found a file that starts with"),
        ([Image.new("F", (9, 9))], ValueError, r"images\[0\]: found a PIL image of mode F"),
        ("missing.jpg", FileNotFoundError, "missing.jpg: cannot read"),
        (np.full((1, 299, 299, 3), np.nan, np.float32), ValueError, r"images\[0\]: step `.*` gives"),
    ],
)
def test_what_is_no_image_is_named(wrong, kind, text, session):
    with pytest.raises(kind, match=text) as caught:
        session(wrong)
    assert "\n" not in str(caught.value)


def test_no_images_are_no_results(session):
    for nothing in ([], np.zeros((0, 299, 299, 3), np.float32), np.zeros((0, 9, 9, 3), np.uint8)):
        output = session(nothing)
        assert output.features.shape == (0, 2048) and output.probabilities.shape == (0, 1000)
        assert output.top(3) == [] and len(output) == 0


def test_bad_images_are_skipped_where_that_is_asked(photographs, session, tmp_path):
    good, bad = list_images(photographs)[0], tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 no image")
    images = [good, bad, good, tmp_path / "missing.jpg", good]
    with pytest.raises(ImageError, match="bad.jpg"):
        session(images)
    output = session(images, skip_bad=True)
    expected = session([good]).features[0]
    for number, row in enumerate(output.features):
        assert same(row, expected) if number % 2 == 0 else np.isnan(row).all()
    assert [type(error) for error in output.errors.values()] == [ImageError, FileNotFoundError]
    assert list(output.errors) == [1, 3] and output.top(1)[1] == []


def test_images_of_a_folder_are_listed_in_order(photographs, tmp_path):
    files = list_images(photographs)
    assert len(files) == 13 and files == sorted(files)
    (photographs / "notes.txt").write_text("no image")
    (photographs / ".hidden.png").write_text("no image")
    assert list_images(str(photographs)) == files
    with pytest.raises(FileNotFoundError, match="found no folder"):
        list_images(tmp_path / "missing")
    with pytest.raises(NotADirectoryError, match="found no folder"):
        list_images(files[0])


def test_an_iterator_is_images(session):
    random = np.random.default_rng(7)
    images = [random.integers(0, 256, (80, 90, 3), np.uint8) for _ in range(4)]
    assert same(session(iter(images)).features, session(images).features)
    bad = session(iter([images[0], b"no image", images[1]]), skip_bad=True)
    assert list(bad.errors) == [1] and "images[1]" in str(bad.errors[1]) and len(bad) == 3
    assert len(session(iter([]))) == 0


def test_of_an_iterator_some_images_are_in_memory_at_once(block):
    alive = most = 0

    class Array(np.ndarray):
        """One that can be referred to weakly."""

    def gone():
        nonlocal alive
        alive -= 1

    def given():
        nonlocal alive, most
        for _ in range(1000):
            image = np.zeros(block.input_shape, np.float32).view(Array)
            weakref.finalize(image, gone)
            alive, most = alive + 1, max(most, alive)
            yield image

    assert len(block(given())) == 1000 and most <= 2 * 256 + 1
