#!/usr/bin/env python3
"""Golden features of the trained InceptionV3 on the six photographs, in float64.

    pip install tensorflow-cpu==2.21.0 keras==3.15.1 numpy==2.4.6 h5py==3.14.0 safetensors==0.8.0 pillow==13.0.0
    python tests/trained/fetch.py --cache DIR
    python tests/trained/golden.py --cache DIR

Where torch and torchvision are installed too, the second file below comes from
torchvision itself.  Contract: writes beside this script

    golden_features_keras.npy        [6, 2048] float32, the border of average pools not counted
    golden_features_torchvision.npy  [6, 2048] float32, the border counted
    golden.json                      versions, sums of the inputs, top classes, licences

and exits 0 only if inception_v3.safetensors, legacy.h5 and keras3.weights.h5, the latter
two read by Keras itself, give the very same features.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

import fetch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden"))
import synthetic  # noqa: E402


def set_torch_weights(model, tensors: dict) -> None:
    """Set a Keras model's weights from torchvision-named tensors."""
    for name, (conv, bn) in zip(fetch.TORCH_NAMES, synthetic.conv_bn_pairs(model), strict=True):
        assert np.all(tensors[f"{name}.bn.weight"] == 1)
        conv.set_weights([tensors[f"{name}.conv.weight"].transpose(2, 3, 1, 0)])
        bn.set_weights([tensors[f"{name}.bn.{key}"] for key in ("bias", "running_mean", "running_var")])
    model.get_layer("predictions").set_weights([tensors["fc.weight"].T, tensors["fc.bias"]])


def features_and_probabilities(keras, model, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probe = keras.Model(model.inputs, [model.get_layer("avg_pool").output, model.output])
    features, probabilities = probe.predict_on_batch(inputs)
    assert features.dtype == np.float64
    return features, probabilities


def torchvision_features(tensors: dict, inputs: np.ndarray) -> tuple[np.ndarray, str] | None:
    """The features by torchvision in float64 and its version, or None where it is not installed."""
    try:
        import torch
        import torchvision
    except (ImportError, OSError, ValueError):
        return None
    model = torchvision.models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})
    model = model.double().eval()
    model.fc = torch.nn.Identity()
    with torch.no_grad():
        features = model(torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy()))
    return features.numpy(), f"torchvision {torchvision.__version__}, torch {torch.__version__}"


def save(path: Path, write) -> None:
    """write(file) into `path`, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        write(file)
    os.replace(temporary, path)


def main() -> int:
    parser = argparse.ArgumentParser(description="write the golden features of the trained InceptionV3")
    parser.add_argument("--cache", type=Path, default=fetch.default_cache(), metavar="DIR")
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR")
    args = parser.parse_args()
    if not fetch.is_ready(args.cache):
        print(f"error: {args.cache} is not ready: run {HERE / 'fetch.py'} first", file=sys.stderr)
        return 1

    keras = synthetic.import_keras()
    import h5py
    import PIL
    import safetensors
    import tensorflow as tf
    from safetensors.numpy import load_file

    inputs = np.load(args.cache / "inputs.npy").astype(np.float64)
    tensors = load_file(args.cache / "inception_v3.safetensors")
    model = synthetic.build_model(keras)
    set_torch_weights(model, tensors)
    ours, probabilities = features_and_probabilities(keras, model, inputs)
    counted, _ = features_and_probabilities(keras, synthetic.count_border(keras, model), inputs)
    counted_by = "keras, average pools replaced by zero padding and valid pools"

    for name in ("legacy.h5", "keras3.weights.h5"):
        model = synthetic.build_model(keras)
        model.load_weights(args.cache / name)
        features, again = features_and_probabilities(keras, model, inputs)
        difference = max(np.abs(features - ours).max(), np.abs(again - probabilities).max())
        print(f"{name}: largest difference from inception_v3.safetensors {difference:g}", file=sys.stderr)
        if difference > 1e-12:
            print(f"error: Keras reads {name} otherwise than it was meant", file=sys.stderr)
            return 1

    if real := torchvision_features(tensors, inputs):
        difference = np.abs(real[0] - counted).max()
        print(f"torchvision: largest difference from Keras with counted border {difference:g}", file=sys.stderr)
        if difference > 1e-9:
            print("error: torchvision and Keras with counted border disagree", file=sys.stderr)
            return 1
        counted, counted_by = real

    top = [
        {"image": name, "class": int(row.argmax()), "probability": synthetic.digits(row.max())}
        for name, row in zip(fetch.IMAGE_NAMES, probabilities, strict=True)
    ]
    manifest = json.loads((args.cache / "manifest.json").read_text())
    summary = {
        "dtype": "float64, stored as float32",
        "trunk": f"npm {fetch.NPM_PACKAGE} (MIT), dequantised from uint8",
        "head": "synthetic (tests/golden/synthetic.py), as the published head is 2048-256-128-5",
        "torchvision_features_by": counted_by,
        "versions": {
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "h5py": h5py.__version__,
            "safetensors": safetensors.__version__,
        },
        "sha256": {name: manifest["sha256"][name] for name in ("inputs.npy", "inception_v3.safetensors")},
        "licences": manifest["licences"],
        "rms": {"keras": synthetic.digits(np.sqrt((ours**2).mean()))}
        | {"torchvision": synthetic.digits(np.sqrt((counted**2).mean()))},
        "top": top,
    }
    save(args.out / "golden_features_keras.npy", lambda file: np.save(file, ours.astype(np.float32)))
    save(args.out / "golden_features_torchvision.npy", lambda file: np.save(file, counted.astype(np.float32)))
    save(args.out / "golden.json", lambda file: file.write((json.dumps(summary, indent=1) + "\n").encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
