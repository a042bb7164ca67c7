"""The Fréchet Inception Distance of two sets of images."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from typing import Any, Optional

import numpy as np

from ._errors import FidError
from ._images import in_set
from ._log import note
from ._native import FidStatistics
from ._session import Session

MODEL = "inception_v3_fid"

WEIGHTS = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)

# Features of an image where nothing else is asked for.
DIMS = 2048


def open_network(weights: Any, dims: int, arguments: dict[str, Any]) -> Session:
    """FID's network, which has no other weights than those of 2015."""
    if weights is None:
        raise ValueError(
            f"weights are missing, expected those of TensorFlow's Inception of 2015, as `curl -LO {WEIGHTS}` gets them"
        )
    return Session.open(weights, model=MODEL, features_only=True, dims=dims, **arguments)


def fid(
    real: Any,
    fake: Any,
    *,
    weights: Optional[os.PathLike[str] | str] = None,
    dims: Optional[int] = None,
    session: Optional[Session] = None,
    **arguments: Any,
) -> float:
    """The Fréchet Inception Distance of two sets of images.

    Each set is a folder, a pattern, a list of paths (`.txt`), statistics (`.npz`, or :class:`FidStatistics`), or images
    as :class:`Session` takes them. The network is pytorch-fid's and so is the preprocessing, unless
    `preprocess` is `"fid-clean"` or `"fid-torch-fidelity"`.

    :param weights: pytorch-fid's `.pth` of TensorFlow's Inception of 2015, or the same as `.safetensors`.
        Two statistics need none.
    :param dims: Features of an image: 64, 192, 768 or 2048, which is FID.
    :param session: A session that gives the features, in place of weights.
    :param arguments: Further arguments of :meth:`Session.open`.
    :raises FidError: A set has fewer than 2 images, or statistics are of other features.
    """
    given = [_statistics(images) for images in (real, fake)]
    _check(weights, dims, session, arguments)
    if session is None and not all(given):
        session = open_network(weights, dims or DIMS, arguments)
    sets = [known or fid_statistics(images, session=session) for images, known in zip((real, fake), given)]
    for statistics, name in zip(sets, ("real", "fake")):
        if statistics.count is not None and statistics.count <= statistics.dims:
            note(
                f"{name}: {statistics.count} images have a singular covariance of {statistics.dims} features, and "
                "their FID is biased: compare it with FIDs of as many images only"
            )
    return sets[0].distance(sets[1])


def fid_statistics(
    images: Any,
    *,
    weights: Optional[os.PathLike[str] | str] = None,
    dims: Optional[int] = None,
    session: Optional[Session] = None,
    **arguments: Any,
) -> FidStatistics:
    """The statistics of a set of images, which has the same forms and arguments as for :func:`fid`."""
    known = _statistics(images)
    _check(weights, dims, session, arguments)
    if known is not None:
        return known
    images = _set(images)
    session = session or open_network(weights, dims or DIMS, arguments)
    statistics: Optional[FidStatistics] = None
    for _, features, _ in session._in_parts(images, False):
        if features is None:
            raise ValueError(f"session: {session.model} has no features")
        statistics = statistics or FidStatistics(features.shape[1])
        statistics.update(features)
    if statistics is None:
        raise FidError("found 0 images, expected at least 2, which have a covariance")
    return statistics


def _check(weights: Any, dims: Optional[int], session: Optional[Session], arguments: dict[str, Any]) -> None:
    """That no argument is there that changes nothing."""
    unknown = arguments.keys() - inspect.signature(Session.open).parameters.keys()
    if unknown:
        raise TypeError(f"found the argument {min(unknown)}, expected those of Session.open")
    if session is not None and not (weights is dims is None and not arguments):
        raise ValueError("session has its network, expected no weights, dims or arguments of Session.open beside it")


def _is_path(images: Any) -> bool:
    return isinstance(images, (str, os.PathLike))


def _statistics(images: Any) -> Optional[FidStatistics]:
    """Statistics that are given as such."""
    if isinstance(images, FidStatistics):
        return images
    if _is_path(images) and os.fspath(images).lower().endswith(".npz"):
        return FidStatistics.load(images)
    return None


def _set(images: Any) -> Iterable[Any]:
    """The images of a folder, a pattern or a list, or those that are given."""
    if _is_path(images):
        return in_set(images)
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise ValueError(f"found an array {list(images.shape)}, expected [N, H, W, C] or a list of images")
    if not isinstance(images, Iterable):
        raise TypeError(f"found {type(images).__name__}, expected several images")
    return images
