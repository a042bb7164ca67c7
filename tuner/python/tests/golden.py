#!/usr/bin/env python3
"""Writes golden.npz: features and distances of pytorch-fid and torch-fidelity, for machines without torch.

    python tuner/python/tests/golden.py

needs torch, torchvision and tests/fid/requirements.txt (the versions that wrote the committed file are in it). The
network is random, by numpy alone, so that a test makes the same weights and images again: numpy's `RandomState` gives
the same numbers in all versions.
"""

import tempfile
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
DIMS = (64, 192, 768, 2048)
# Images of each side of the distance, whose features are 64.
COUNT = 70


def state(names, shapes):
    """Tensors by name, which keep the size of activations from layer to layer."""
    random = np.random.RandomState(1)
    ranges = {"running_mean": (-0.1, 0.1), "running_var": (0.75, 1.25), "bias": (-0.1, 0.1), "weight": (0.8, 1.2)}
    tensors = {}
    for name, shape in zip(names, shapes):
        low, high = ranges[name.rsplit(".", 1)[1]]
        if len(shape) > 1:
            high = (6 / np.prod(shape[1:])) ** 0.5
            low = -high
        tensors[name] = random.uniform(low, high, shape).astype(np.float32)
    return tensors


def torch_state():
    """The same as a state dict of pytorch-fid's network."""
    import torch
    import torchvision

    plain = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    given = plain.state_dict()
    shapes = {name: list(tensor.shape) for name, tensor in given.items() if tensor.ndim}
    tensors = state(shapes, shapes.values())
    return {**given, **{name: torch.from_numpy(array) for name, array in tensors.items()}}


def images(seed, count, height, width):
    """uint8 [N, H, W, 3]: coarse noise, as large as a side."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, (count, height // 10, width // 10, 3))
    return coarse.repeat(10, axis=1).repeat(10, axis=2).astype(np.uint8)


def compared():
    """Images whose features are compared."""
    return images(2, 2, 130, 180)


def sides():
    """Images whose distance is computed."""
    return images(3, COUNT, 50, 60), images(4, COUNT, 50, 60) // 2 + 60


def main():
    import pytorch_fid
    import pytorch_fid.fid_score as fid_score
    import pytorch_fid.inception as inception
    import torch
    import torch_fidelity
    import torchvision

    tensors = torch_state()
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items() if tensor.ndim}
    inception.load_state_dict_from_url = lambda *_, **__: tensors
    given = torch.from_numpy(compared().transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        maps = inception.InceptionV3([0, 1, 2, 3]).eval()(given.float() / 255)
        pooled = [of_layer.mean((2, 3)).numpy() for of_layer in maps]
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            torch.save(tensors, file.name)
            names = [str(dims) for dims in DIMS]
            options = {"feature_extractor_weights_path": file.name}
            fidelity = torch_fidelity.FeatureExtractorInceptionV3("x", names, **options)(given)
    model, both = inception.InceptionV3([0]).eval(), []
    for side in sides():
        with torch.no_grad():
            features = model(torch.from_numpy(side.transpose(0, 3, 1, 2).copy()).float() / 255)[0]
        features = features.mean((2, 3)).double().numpy()
        both += [features.mean(0), np.cov(features, rowvar=False)]
    distance = fid_score.calculate_frechet_distance(*both)
    versions = {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pytorch-fid": pytorch_fid.__version__,
        "torch-fidelity": torch_fidelity.__version__,
        "numpy": np.__version__,
    }
    np.savez_compressed(
        FILE,
        names=list(shapes),
        shapes=[" ".join(map(str, shape)) for shape in shapes.values()],
        versions=[f"{name} {version}" for name, version in versions.items()],
        distance=distance,
        **{f"pytorch_fid_{dims}": features for dims, features in zip(DIMS, pooled)},
        **{f"torch_fidelity_{dims}": features.numpy() for dims, features in zip(DIMS, fidelity)},
    )
    print(FILE, FILE.stat().st_size, "bytes, distance", distance)


if __name__ == "__main__":
    main()
