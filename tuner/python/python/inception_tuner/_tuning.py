"""Tuning: kernels are measured on this machine, and a plan is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Optional, Union

from . import _native
from ._log import note

Path = Union[str, "os.PathLike[str]"]


def results_folder() -> str:
    """The folder of plans where none is named: `$TUNER_RESULTS`, or else that of the command line."""
    return os.environ.get("TUNER_RESULTS") or os.fspath(_native.results_folder())


def target(
    weights: Optional[Path],
    model: str,
    size: Optional[tuple[int, int]],
    features_only: bool,
    dims: Optional[int],
    threads: Optional[int],
    batch: Optional[int],
    precision: Optional[str],
    results: Optional[Path],
    budget: Optional[float],
) -> dict[str, Any]:
    """What a session or a tuning is for, as the native part takes it."""
    for name, number in (("threads", threads), ("batch", batch)):
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}, expected a number from 1 to 1024")
    return {
        "weights": None if weights is None else os.fspath(weights),
        "model": model,
        "size": None if size is None else list(size),
        "features_only": features_only,
        "dims": dims,
        "threads": threads,
        "batch": batch,
        "precision": precision,
        "results": results_folder() if results is None else os.fspath(results),
        "budget": budget,
    }


def tune(
    weights: Optional[Path] = None,
    *,
    model: str = "inception_v3",
    threads: Optional[int] = None,
    batch: int = 1,
    precision: str = "f32",
    budget: Optional[float] = None,
    results: Optional[Path] = None,
    out: Optional[Path] = None,
    fresh: bool = False,
    size: Optional[tuple[int, int]] = None,
    features_only: bool = False,
    progress: Optional[Callable[[str, float, str], object]] = None,
) -> str:
    """Measures the kernels on this machine, and writes the plan that sessions of it then find.

    Interrupting it, or an exception of `progress`, ends it; then no plan is written, and what was
    measured stays in the log for the next tuning.

    :param weights: As for :meth:`Session.open`.
    :param model: A network, or a block of one.
    :param threads: The physical cores that this process may use without it.
    :param batch: Images of one inference.
    :param precision: `"f32"`, `"bf16"` or `"int8"`.
    :param budget: Seconds for measuring; 33 without it.
    :param results: The folder of plans and logs, in it a folder a machine.
    :param out: The file of the plan; one in the folder of this machine without it.
    :param fresh: Take no earlier measurement from the log.
    :param size: Height and width of images.
    :param features_only: Leave the classifier of the weights out.
    :param progress: Called by this thread with the stage, how far it is done from 0 to 1, and at what
        it is, some times a second.
    :returns: The plan's path.
    :raises TuneError: No plan keeps the bounds, or the machine refuses.
    """
    asked = target(weights, model, size, features_only, None, threads, batch, precision, results, budget)
    path, notes = _native.tune(asked, None if out is None else os.fspath(out), fresh, progress, note)
    for text in notes:
        note(text)
    return os.fspath(path)
