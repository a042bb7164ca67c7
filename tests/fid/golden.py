#!/usr/bin/env python3
"""Writes the golden values of the Fréchet distance: golden.json, and statistics as numpy writes them.

    python tests/fid/golden.py

needs numpy and scipy (numpy 1.24.2 and scipy 1.11.4 wrote the committed files).  Features are multiples of 1/64, so
that f32 holds them.  Means and covariances are numpy's.  The distance takes the trace of the root of the product from
the singular values of X1 X2^T, X the centred features, which is exact where a covariance is singular too; it is checked
against scipy's sqrtm, as pytorch-fid has it, to SQRTM.
"""

import json
from pathlib import Path

import numpy as np
import scipy.linalg

FOLDER = Path(__file__).parent
# The root of a product with an eigenvalue of 0 has half of the digits of the product.
SQRTM = 1e-6


def features(rng, count, dims, rank=None):
    """Correlated features; of a lower rank than there are features, where one is given."""
    mixing = rng.normal(size=(rank or dims, dims))
    return np.round((rng.normal(size=(count, rank or dims)) @ mixing + rng.normal(size=dims)) * 64) / 64


def covariance(x):
    """numpy's, as a matrix of one feature too."""
    return np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])


def distance(a, b):
    mean = np.sum((a.mean(0) - b.mean(0)) ** 2)
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    root = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    covariances = [covariance(x) for x in (a, b)]
    result = mean + sum(map(np.trace, covariances)) - 2 * root
    by_root = scipy.linalg.sqrtm(covariances[0] @ covariances[1], disp=False)[0]
    reference = mean + sum(map(np.trace, covariances)) - 2 * np.trace(by_root).real
    assert abs(result - reference) <= SQRTM * sum(map(np.trace, covariances)), (result, reference)
    return result


def main():
    rng = np.random.default_rng(2026)
    dead = features(rng, 20, 6)
    dead[:, 2] = 0.25
    sets = {
        "more images than features": (features(rng, 24, 6), features(rng, 30, 6)),
        "fewer images than features": (features(rng, 4, 9), features(rng, 5, 9)),
        "one singular": (features(rng, 3, 6), features(rng, 25, 6)),
        "two images": (features(rng, 2, 5), features(rng, 2, 5)),
        "a feature that never changes": (dead, features(rng, 20, 6)),
        "the same feature twice": (np.repeat(features(rng, 20, 3), 2, 1), features(rng, 20, 6)),
        "one feature": (features(rng, 9, 1), features(rng, 9, 1)),
    }
    cases = []
    for name, (a, b) in sets.items():
        dims = a.shape[1]
        sides = [
            {
                "features": x.ravel().tolist(),
                "mean": x.mean(0).tolist(),
                "covariance": covariance(x).ravel().tolist(),
            }
            for x in (a, b)
        ]
        cases.append({"name": name, "dims": dims, "a": sides[0], "b": sides[1], "distance": distance(a, b)})
    text = ",\n".join(json.dumps(case) for case in cases)
    (FOLDER / "golden.json").write_text(f"[\n{text}\n]\n")
    a, b = sets["more images than features"]
    mu, sigma = a.mean(0), covariance(a)
    np.savez_compressed(FOLDER / "deflated.npz", mu=mu, sigma=sigma)
    mu, sigma = b.mean(0), covariance(b)
    np.savez(FOLDER / "stored_f32.npz", mu=mu.astype(np.float32), sigma=np.asfortranarray(sigma, np.float32))


if __name__ == "__main__":
    main()
