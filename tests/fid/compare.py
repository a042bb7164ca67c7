#!/usr/bin/env python3
"""Compares features and distances of the tuner with pytorch-fid, torch-fidelity and clean-fid.

    python tests/fid/compare.py FOLDER --cache DIR --tuner target/release/tuner

needs torch, torchvision, safetensors, pillow and requirements.txt; DIR is the folder of tests/trained/fetch.py.  A
random network of pytorch-fid's own module is written as .pth and .safetensors.  FOLDER/many and FOLDER/few get a folder
`real` of parts of photographs, of several sizes, and a folder `fake` of noisy copies.  Then these must hold, or the exit
status is 1:

- features of 64, 192, 768 and 2048: those of pytorch-fid's module, to FEATURES as relative L2; the 2048 also of
  torch-fidelity's and clean-fid's preprocessing;
- distances: those of pytorch_fid.fid_score and of torch_fidelity on the same folders, to ABSOLUTE and to RELATIVE of
  the distance.  Many images are more than 64 features, and few are fewer, so that their covariances are singular: there
  pytorch-fid may end with an error instead;
- kernel distances: those of torch_fidelity on the same subsets, to KERNEL;
- statistics: pytorch-fid reads what the tuner writes, and the tuner what pytorch-fid writes.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import cleanfid.resize
import numpy as np
import pytorch_fid.fid_score as fid_score
import pytorch_fid.inception as inception
import torch
import torch_fidelity
import torch_fidelity.metric_fid
import torchvision
from PIL import Image
from safetensors.torch import save_file

FEATURES = 1e-5
ABSOLUTE = 1e-3
RELATIVE = 1e-5
# A kernel distance is a difference of means of kernels, which torch-fidelity sums in float32.
KERNEL = 1e-5
SUBSET = 10
DIMS = (64, 192, 768, 2048)
IMAGES = {"many": 72, "few": 12}
# Height and width: as the network takes, smaller, larger, and no square.
SIZES = ((299, 299), (96, 128), (240, 320), (333, 500))
# Images whose features are compared.
FEW = 4


def random_network(seed: int) -> dict:
    """A state dict with the size of activations kept from layer to layer."""
    torch.manual_seed(seed)
    module = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            limit = (6 / layer.weight[0].numel()) ** 0.5
            torch.nn.init.uniform_(layer.weight, -limit, limit)
        elif isinstance(layer, torch.nn.BatchNorm2d):
            for tensor, low, high in [
                (layer.weight, 0.8, 1.2),
                (layer.bias, -0.1, 0.1),
                (layer.running_mean, -0.1, 0.1),
                (layer.running_var, 0.75, 1.25),
            ]:
                torch.nn.init.uniform_(tensor, low, high)
    return module.state_dict()


def write_images(folder: Path, count: int, photographs: list[Path]) -> None:
    """Parts of photographs in folder/real, and noisy copies in folder/fake, without loss."""
    rng = np.random.default_rng(1)
    for side in ("real", "fake"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image = Image.open(photographs[number % len(photographs)]).convert("RGB")
        height, width = SIZES[number % len(SIZES)]
        height, width = min(height, image.height), min(width, image.width)
        top, left = rng.integers(image.height - height + 1), rng.integers(image.width - width + 1)
        levels = np.asarray(image)[top : top + height, left : left + width]
        Image.fromarray(levels).save(folder / "real" / f"{number:03}.png")
        noisy = np.clip(levels + rng.normal(0, 30, levels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "fake" / f"{number:03}.png")


class Check:
    """Runs the tuner, and counts what is wrong."""

    def __init__(self, tuner: Path, folder: Path):
        self.tuner, self.folder, self.wrong, self.compared = tuner.resolve(), folder, 0, 0

    def run(self, *arguments: str) -> str:
        command = [str(self.tuner), *arguments, "--results", "results"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def distances(self, *arguments: str) -> dict:
        return json.loads(self.run("fid", *arguments, "--json"))

    def fid(self, *arguments: str) -> float:
        return self.distances(*arguments)["fid"]

    def features(self, files: list[Path], *arguments: str, weights: str = "w.pth") -> np.ndarray:
        images = [str(file.relative_to(self.folder)) for file in files]
        options = ["--weights", weights, "--features", "--output", "y.npy", *arguments]
        self.run("run", "--model", "inception_v3_fid", "--image", *images, *options)
        return np.load(self.folder / "y.npy").astype(np.float64)

    def holds(self, what: str, found: float, bound: float) -> None:
        self.compared += 1
        self.wrong += not found <= bound
        print(f"  {'' if found <= bound else 'WRONG '}{found:.1e} of {bound:.1e}  {what}")

    def same(self, what: str, found: np.ndarray, expected: np.ndarray) -> None:
        assert found.shape == expected.shape, (what, found.shape, expected.shape)
        self.holds(what, float(np.linalg.norm(found - expected) / np.linalg.norm(expected)), FEATURES)

    def near(self, what: str, found: float, expected: float) -> None:
        self.holds(f"{what}: {found:.6f}", abs(found - expected), min(ABSOLUTE, RELATIVE * abs(expected)))


def pooled(model: torch.nn.Module, images: list[torch.Tensor]) -> np.ndarray:
    """The means over the image of a module's features, one image at a time."""
    with torch.no_grad():
        return np.stack([model(image[None])[0].mean((2, 3))[0].numpy() for image in images]).astype(np.float64)


def compare_features(check: Check, files: list[Path]) -> None:
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    tensors = [torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in images]
    for dims in DIMS:
        model = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[dims]]).eval()
        expected = pooled(model, [tensor.float() / 255 for tensor in tensors])
        check.same(f"pytorch-fid's {dims} features", check.features(files, "--dims", str(dims)), expected)
    check.same("without --dims, by .safetensors", check.features(files, weights="w.safetensors"), expected)
    options = {"feature_extractor_weights_path": str(check.folder / "w.pth")}
    extractor = torch_fidelity.FeatureExtractorInceptionV3("x", ["2048"], **options)
    expected = np.stack([extractor(tensor[None])[0][0].numpy() for tensor in tensors]).astype(np.float64)
    check.same("torch-fidelity's features", check.features(files, "--preprocess", "fid-torch-fidelity"), expected)
    model = inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    resize = cleanfid.resize.build_resizer("clean")
    clean = [torch.from_numpy((resize(image).transpose(2, 0, 1) - 128) / 128) for image in images]
    check.same("clean-fid's features", check.features(files, "--preprocess", "fid-clean"), pooled(model, clean))


def statistics(folder: Path, dims: int) -> list[dict]:
    """pytorch-fid's statistics of both sides.  Images of several sizes are no batch of it."""
    model = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[dims]])
    sides = [str(folder / side) for side in ("real", "fake")]
    both = [fid_score.compute_statistics_of_path(side, model, 1, dims, "cpu", 0) for side in sides]
    return [{"mu": mu, "sigma": sigma} for mu, sigma in both]


def compare_distances(check: Check) -> None:
    for count, dims in (("many", 64), ("few", 64), ("few", 192), ("few", 768)):
        both = statistics(check.folder / count, dims)
        options = ("--weights", "w.safetensors", "--dims", str(dims))
        found = check.fid(f"{count}/real", f"{count}/fake", *options)
        expected = torch_fidelity.metric_fid.fid_statistics_to_metric(*both, verbose=False)
        what = f"{dims} features of {IMAGES[count]} images"
        check.near(f"eigenvalues by torch-fidelity, {what}", found, expected["frechet_inception_distance"])
        try:
            expected = fid_score.calculate_frechet_distance(*both[0].values(), *both[1].values())
            check.near(f"pytorch-fid, {what}", found, expected)
        except ValueError as error:
            print(f"  pytorch-fid has no distance of {what}: {error}")
    for count, dims in (("many", 64), ("few", 2048)):
        metrics = torch_fidelity.calculate_metrics(
            input1=str(check.folder / count / "real"),
            input2=str(check.folder / count / "fake"),
            fid=True,
            kid=True,
            kid_subset_size=SUBSET,
            kid_subsets=100,
            cuda=False,
            batch_size=1,
            cache=False,
            verbose=False,
            feature_layer_fid=str(dims),
            feature_layer_kid=str(dims),
            feature_extractor_weights_path=str(check.folder / "w.pth"),
        )
        options = ("--weights", "w.pth", "--dims", str(dims), "--preprocess", "fid-torch-fidelity")
        found = check.distances(f"{count}/real", f"{count}/fake", f"--kid={SUBSET}", *options)
        what = f"torch-fidelity, {dims} features of {IMAGES[count]} images"
        check.near(what, found["fid"], metrics["frechet_inception_distance"])
        for key, theirs in (("mean", "kernel_inception_distance_mean"), ("deviation", "kernel_inception_distance_std")):
            error = abs(found["kid"][key] - metrics[theirs])
            check.holds(f"KID of {what}: {key} {found['kid'][key]:.6f}", error, KERNEL)


def compare_statistics(check: Check) -> None:
    real, fake = (str(check.folder / "many" / side) for side in ("real", "fake"))
    ours, theirs = check.folder / "ours.npz", check.folder / "theirs.npz"
    theirs.unlink(missing_ok=True)
    fid_score.save_fid_stats([real, str(theirs)], 1, "cpu", 64, num_workers=0)
    weights = ("--weights", "w.pth")
    check.run("fid", "many/real", "--save-stats", "ours.npz", "--dims", "64", *weights)
    expected = fid_score.calculate_fid_given_paths([str(theirs), fake], 1, "cpu", 64, num_workers=0)
    check.near("their statistics and our images", check.fid("theirs.npz", "many/fake", *weights), expected)
    found = fid_score.calculate_fid_given_paths([str(ours), fake], 1, "cpu", 64, num_workers=0)
    check.near("our statistics and their images", found, expected)
    with np.load(ours) as a, np.load(theirs) as b:
        assert a["count"] == IMAGES["many"] and a["mu"].dtype == a["sigma"].dtype == np.float64
        check.same("mu", a["mu"], b["mu"])
        check.same("sigma", a["sigma"], b["sigma"])


def main() -> int:
    parser = argparse.ArgumentParser(description="compare with pytorch-fid and torch-fidelity")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR", help="folder of fetch.py")
    parser.add_argument("--tuner", type=Path, required=True, metavar="PROGRAM")
    args = parser.parse_args()
    start, folder = time.monotonic(), args.folder.resolve()
    for name, count in IMAGES.items():
        write_images(folder / name, count, sorted((args.cache / "images").iterdir()))
    state = random_network(1)
    torch.save(state, folder / "w.pth")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "w.safetensors")
    inception.load_state_dict_from_url = lambda *_, **__: state
    fid_score.tqdm = lambda images: images
    check = Check(args.tuner, folder)
    compare_features(check, sorted((folder / "many" / "real").iterdir())[:FEW])
    compare_distances(check)
    compare_statistics(check)
    print(f"{check.compared} compared, {check.wrong} wrong, {time.monotonic() - start:.0f} s")
    return 1 if check.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
