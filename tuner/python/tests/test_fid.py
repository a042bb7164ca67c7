"""FID: statistics, distances of folders, and the extractors of pytorch-fid and torch-fidelity."""

import json
import pickle
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image

import golden
import inception_tuner
from inception_tuner import FidelityFeatures, FidError, FidStatistics, InceptionV3Features, Session, list_images


@pytest.fixture(scope="module")
def network():
    """FID's network on synthetic weights, for tests that need no true distance."""
    return Session.open(model="inception_v3_fid", plan=None, threads=2, features_only=True)


@pytest.fixture(scope="module")
def noisy(photographs, tmp_path_factory):
    """The photographs with noise."""
    folder = tmp_path_factory.mktemp("noisy")
    random = np.random.default_rng(3)
    for number, file in enumerate(list_images(photographs)):
        pixels = np.asarray(Image.open(file).convert("RGB")) + random.normal(0, 30, 3)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def rows(count, dims=16, seed=1):
    return np.random.default_rng(seed).normal(size=(count, dims)).astype(np.float32)


def test_statistics_are_those_of_numpy_whatever_is_added_at_once():
    features = rows(700)
    whole, parts = FidStatistics(16), FidStatistics(16)
    whole.update(features)
    for part in np.split(features, [1, 3, 300, 500]):
        parts.update(np.ascontiguousarray(part))
    assert (whole.dims, whole.count) == (16, 700)
    assert np.allclose(whole.mean, features.mean(axis=0, dtype=np.float64), atol=1e-12)
    assert np.allclose(whole.covariance, np.cov(features.astype(np.float64), rowvar=False), atol=1e-12)
    assert whole.covariance.tobytes() == parts.covariance.tobytes()
    assert repr(whole) == "<inception_tuner.FidStatistics of 16 features, 700 images>"


def test_merged_statistics_are_those_of_all_images():
    features = rows(700)
    whole, merged = FidStatistics(16), FidStatistics(16)
    whole.update(features)
    for part in np.split(features, [100, 101, 500]):
        of_worker = FidStatistics(16)
        of_worker.update(np.ascontiguousarray(part))
        merged.merge(pickle.loads(pickle.dumps(of_worker)))
    assert merged.count == 700
    assert np.allclose(merged.covariance, whole.covariance, rtol=1e-12, atol=1e-14)
    whole.merge(whole)
    assert whole.count == 1400


@pytest.mark.parametrize("count", [0, 1, 255, 256, 700])
def test_statistics_pickle_bit_by_bit(count):
    statistics = FidStatistics(16)
    statistics.update(rows(count))
    again = pickle.loads(pickle.dumps(statistics))
    for both in (statistics, again):
        both.update(rows(9, seed=2))
    assert again.count == count + 9 and again.covariance.tobytes() == statistics.covariance.tobytes()


def test_files_are_those_of_pytorch_fid(tmp_path):
    statistics = FidStatistics(16)
    statistics.update(rows(50))
    statistics.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["mu"], statistics.mean) and np.array_equal(file["sigma"], statistics.covariance)
        np.savez(tmp_path / "b.npz", mu=file["mu"], sigma=file["sigma"])
    assert FidStatistics.load(tmp_path / "a.npz").count == 50
    theirs = FidStatistics.load(tmp_path / "b.npz")
    assert theirs.count is None and theirs.distance(statistics) == 0
    assert pickle.loads(pickle.dumps(theirs)).distance(statistics) == 0
    assert inception_tuner.fid(tmp_path / "a.npz", theirs) == 0


def test_images_of_a_set_are_those_of_the_program(program, photographs, network, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "more").symlink_to(photographs)
    for number, end in enumerate(["jpe", "JFIF", "gif"]):
        Image.new("RGB", (90, 90), (number, 40, 200)).save(folder / f"{number}.{end}", "GIF" if end == "gif" else "JPEG")
    files = list_images(folder)
    assert len(files) == 16
    names = tmp_path / "names.txt"
    names.write_text(f"\ufeff{folder}\n{photographs}/*.png\n")
    counts = [inception_tuner.fid_statistics(images, session=network).count for images in (folder, names)]
    assert counts == [16, 16 + len(list(photographs.glob("*.png")))]
    done = subprocess.run(
        [program, "fid", names, "--save-stats", tmp_path / "s.npz", "--seed", "1", "--results", tmp_path], check=True
    )
    assert done.returncode == 0 and FidStatistics.load(tmp_path / "s.npz").count == counts[1]


def test_what_changes_nothing_is_refused(network):
    images = np.zeros((2, 80, 90, 3), np.uint8)
    for arguments in ({"dims": 192}, {"weights": "w.pth"}, {"preprocess": "fid-clean"}):
        with pytest.raises(ValueError, match="session has its network, expected no weights, dims or arguments"):
            inception_tuner.fid(images, images, session=network, **arguments)
    for arguments in ({"kid": True}, {"skip_bad": True}):
        with pytest.raises(TypeError, match=f"found the argument {min(arguments)}, expected those of Session.open"):
            inception_tuner.fid(images, images, **arguments)
    for one in (np.zeros((80, 90, 3), np.uint8), np.zeros((10, 90, 80), np.uint8)):
        with pytest.raises(ValueError, match=r"found an array \[\d+, \d+, \d+\], expected \[N, H, W, C\]"):
            inception_tuner.fid_statistics(one, session=network)
    with pytest.raises(FidError, match="found 0 images"):
        inception_tuner.fid_statistics([], session=network)


def test_a_matrix_that_is_no_covariance_has_no_distance(tmp_path):
    indefinite = np.eye(8)
    indefinite[0, 1] = indefinite[1, 0] = 2
    np.savez(tmp_path / "indefinite.npz", mu=np.zeros(8), sigma=indefinite)
    np.savez(tmp_path / "one.npz", mu=np.zeros(8), sigma=np.eye(8))
    for names in (("indefinite", "one"), ("one", "indefinite")):
        with pytest.raises(FidError, match="found a covariance with negative eigenvalues, expected none"):
            inception_tuner.fid(*(tmp_path / f"{name}.npz" for name in names))


def test_features_of_any_layout_are_added():
    features = rows(50)
    expected = FidStatistics(16)
    expected.update(features)
    for same in (np.asfortranarray(features), features[::-1][::-1], np.repeat(features, 2, 1)[:, ::2]):
        statistics = FidStatistics(16)
        statistics.update(same)
        assert statistics.covariance.tobytes() == expected.covariance.tobytes()


@pytest.mark.parametrize(
    "wrong, kind, text",
    [
        (lambda: FidStatistics(0), ValueError, "dims is 0, expected"),
        (lambda: FidStatistics(16).update(rows(3, 15)), FidError, r"features: found shape \[3, 15\], expected \[N, 16\]"),
        (lambda: FidStatistics(1).update(np.full((1, 1), np.inf, np.float32)), FidError, "found inf as feature 0"),
        (lambda: FidStatistics(16).covariance, FidError, "found 0 images, expected at least 2"),
        (lambda: FidStatistics(16).merge(FidStatistics(15)), FidError, "found statistics of 15 features, expected 16"),
        (lambda: FidStatistics.load("missing.npz"), FileNotFoundError, "missing.npz: cannot read"),
        (lambda: FidStatistics.load(__file__), FidError, "test_fid.py: "),
        (lambda: inception_tuner.fid("a", "b"), ValueError, "weights are missing, expected those of TensorFlow's"),
        (lambda: InceptionV3Features([4]), ValueError, r"output_blocks is \[4\], expected some of 0, 1, 2 and 3"),
        (lambda: FidelityFeatures("x", ["logits"]), ValueError, r"features_list is \['logits'\], expected some of 64"),
    ],
)  # fmt: skip
def test_what_has_no_statistics_is_named(wrong, kind, text):
    with pytest.raises(kind, match=text) as caught:
        wrong()
    assert "\n" not in str(caught.value)


def test_statistics_are_updated_by_several_threads():
    statistics, features = FidStatistics(16), rows(300)
    threads = [threading.Thread(target=statistics.update, args=(features,)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert statistics.count == 1200


def test_folders_lists_and_arrays_have_the_distance_that_the_program_prints(
    program, photographs, noisy, network, tmp_path, caplog
):
    found = inception_tuner.fid(photographs, noisy, session=network)
    command = [program, "fid", photographs, noisy, "--seed", "1", "--json", "--threads", "2"]
    done = subprocess.run([*command, "--results", tmp_path], check=True, capture_output=True, text=True)
    assert found == pytest.approx(json.loads(done.stdout)["fid"], rel=1e-9)
    assert "13 images have a singular covariance of 2048 features" in caplog.text
    names = tmp_path / "real.txt"
    names.write_text("".join(f"{file}\n" for file in list_images(photographs)))
    pixels = [np.asarray(Image.open(file)) for file in list_images(noisy)]
    assert inception_tuner.fid(names, pixels, session=network) == pytest.approx(found, rel=1e-9)
    statistics = inception_tuner.fid_statistics(noisy, session=network)
    assert inception_tuner.fid(photographs, statistics, session=network) == pytest.approx(found, rel=1e-9)
    assert inception_tuner.fid(photographs, photographs, session=network) == 0


def close(found, expected):
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 1e-5, f"{error:e}"


def test_features_are_those_that_pytorch_fid_and_torch_fidelity_gave(recorded, recorded_weights):
    images = golden.compared()
    planes = images.transpose(0, 3, 1, 2)
    options = {"plan": None, "threads": 2}
    extractor = InceptionV3Features([0, 1, 2, 3], weights=recorded_weights, **options)
    of_pytorch_fid = extractor(planes.astype(np.float32) / 255)
    names = [str(dims) for dims in golden.DIMS]
    of_fidelity = FidelityFeatures("ours", names, str(recorded_weights), **options)(planes)
    for dims, ours, fidelity in zip(golden.DIMS, of_pytorch_fid, of_fidelity):
        close(ours[..., 0, 0], recorded[f"pytorch_fid_{dims}"])
        close(fidelity, recorded[f"torch_fidelity_{dims}"])
        session = Session.open(recorded_weights, model="inception_v3_fid", dims=dims, plan=None, features_only=True)
        close(session(list(images)).features, recorded[f"pytorch_fid_{dims}"])


def test_the_distance_is_that_which_pytorch_fid_gave(recorded, recorded_weights):
    options = {"model": "inception_v3_fid", "features_only": True, "dims": 64, "plan": None, "threads": 2}
    session = Session.open(recorded_weights, **options)
    found = inception_tuner.fid(*map(list, golden.sides()), session=session)
    assert found == pytest.approx(float(recorded["distance"]), rel=1e-5, abs=0)


@pytest.fixture(scope="module")
def trained_fid(tmp_path_factory):
    """A random network of pytorch-fid's own module as .pth, the module, and torch."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    inception = pytest.importorskip("pytorch_fid.inception", reason="pytorch-fid is not installed")
    torch_states = golden.torch_state()
    path = tmp_path_factory.mktemp("fid") / "fid.pth"
    torch.save(torch_states, path)
    loaded = torch.hub.load_state_dict_from_url
    inception.load_state_dict_from_url = lambda *_, **__: torch_states
    yield path, inception, torch
    torch.hub.load_state_dict_from_url = loaded


def test_features_are_those_of_pytorch_fid_on_its_tensors(trained_fid):
    path, inception, torch = trained_fid
    blocks = [0, 1, 2, 3]
    theirs = inception.InceptionV3(blocks, use_fid_inception=True).eval()
    ours = InceptionV3Features(blocks, weights=path, plan=None, threads=2).eval().to("cpu")
    for size in ((299, 299), (120, 200)):
        images = torch.rand(3, 3, *size)
        with torch.no_grad():
            expected = theirs(images)
        for found, maps in zip(ours(images), expected):
            assert found.shape == (3, maps.shape[1], 1, 1) and found.dtype == torch.float32
            close(found.numpy()[..., 0, 0], maps.mean(dim=(2, 3)).numpy())
    with pytest.raises(ValueError, match=r"inp: found shape \[3, 8, 8\], expected \[N, 3, H, W\]"):
        ours(torch.rand(3, 8, 8))


def test_pytorch_fid_computes_by_the_extractor(trained_fid, photographs, noisy):
    path, _, _ = trained_fid
    fid_score = pytest.importorskip("pytorch_fid.fid_score", reason="pytorch-fid is not installed")
    ours = InceptionV3Features(weights=path, plan=None, threads=2)
    # Of lossless files, since decoders of JPEGs differ.
    lossless = [list_images(folder, [".png"])[:6] for folder in (photographs, noisy)]
    files = [[str(file) for file in some] for some in lossless]
    found = []
    for paths in files:
        sizes = {}
        features = [None] * len(paths)
        for number, path_of_image in enumerate(paths):
            size = Image.open(path_of_image).size
            sizes.setdefault(size, []).append(number)
        for numbers in sizes.values():
            some = fid_score.get_activations([paths[n] for n in numbers], ours, batch_size=4, num_workers=0)
            for n, row in zip(numbers, some):
                features[n] = row
        found.append(np.array(features))
    for paths, features in zip(files, found):
        session = Session.open(path, model="inception_v3_fid", features_only=True, plan=None, threads=2)
        close(features.astype(np.float32), session(paths).features)


def test_features_are_those_of_torch_fidelity_on_its_tensors(trained_fid):
    path, _, torch = trained_fid
    module = pytest.importorskip(
        "torch_fidelity.feature_extractor_inceptionv3", reason="torch-fidelity is not installed"
    )
    names = ["64", "192", "768", "2048"]
    theirs = module.FeatureExtractorInceptionV3("theirs", names, str(path)).eval()
    ours = FidelityFeatures("ours", names, str(path), plan=None, threads=2).eval()
    images = torch.randint(0, 256, (3, 3, 130, 180), dtype=torch.uint8)
    with torch.no_grad():
        expected = theirs(images)
    for found, rows_of_theirs in zip(ours(images), expected):
        close(found.numpy(), rows_of_theirs.numpy())


def test_torch_fidelity_computes_by_the_registered_extractor(trained_fid, tmp_path):
    path, _, _ = trained_fid
    torch_fidelity = pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    random = np.random.default_rng(5)
    for name, mean in (("real", 100), ("fake", 140)):
        (tmp_path / name).mkdir()
        for number in range(6):
            pixels = np.clip(random.normal(mean, 40, (90, 90, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    ours = inception_tuner.register_with_torch_fidelity(plan=None, threads=2)
    options = dict(fid=True, cuda=False, verbose=False, cache=False, feature_extractor_weights_path=str(path))
    folders = [str(tmp_path / name) for name in ("real", "fake")]
    found, expected = (
        torch_fidelity.calculate_metrics(input1=folders[0], input2=folders[1], feature_extractor=name, **options)
        for name in (ours, "inception-v3-compat")
    )
    key = torch_fidelity.KEY_METRIC_FID
    assert found[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-3)
