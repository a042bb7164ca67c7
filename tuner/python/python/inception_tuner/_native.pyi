from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

_Results = tuple[npt.NDArray[np.float32], Optional[npt.NDArray[np.float32]], dict[int, Exception]]

class ModelError(ValueError): ...
class WeightsError(ValueError): ...
class PlanError(ValueError): ...
class ImageError(ValueError): ...
class NotFiniteError(ValueError): ...
class TuneError(RuntimeError): ...
class FidError(ValueError): ...

class FidStatistics:
    """Mean and covariance of the features of images, which come some rows at a time.

    Memory does not grow with the number of images. It pickles, bit by bit.
    """

    def __new__(cls, dims: int = 2048) -> FidStatistics: ...
    @staticmethod
    def load(path: str | PathLike[str]) -> FidStatistics:
        """Reads an `.npz` file with `mu` and `sigma`."""

    def save(self, path: str | PathLike[str]) -> None:
        """Writes an `.npz` file that pytorch-fid and others read."""

    def update(self, features: npt.NDArray[np.float32]) -> None:
        """Adds the features of images, float32 [N, dims]."""

    def merge(self, other: FidStatistics) -> None:
        """Adds the images of others, without loss but for rounding."""

    def distance(self, other: FidStatistics) -> float:
        """The Fréchet distance to others."""

    @property
    def dims(self) -> int: ...
    @property
    def count(self) -> Optional[int]: ...
    @property
    def mean(self) -> npt.NDArray[np.float64]: ...
    @property
    def covariance(self) -> npt.NDArray[np.float64]: ...

class Session:
    def __new__(
        cls,
        target: dict[str, Any],
        plan: dict[str, Any],
        preprocess: dict[str, Any],
        streams: Optional[int],
        note: Callable[[str], object],
    ) -> Session: ...
    def fork(self) -> Optional[Session]: ...
    def run(self, images: npt.NDArray[np.float32]) -> _Results: ...
    def run_each(
        self,
        images: list[Any],
        decode: Callable[[Any, str], npt.NDArray[Any]],
        skip_bad: bool,
        unit: bool,
        first: int,
    ) -> _Results: ...
    @property
    def model(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def streams(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def input_shape(self) -> tuple[int, int, int]: ...
    @property
    def classes(self) -> Optional[int]: ...
    @property
    def labels(self) -> Optional[list[str]]: ...
    @property
    def plan(self) -> Optional[Path]: ...
    @property
    def plan_json(self) -> str: ...
    @property
    def preprocess(self) -> str: ...
    @property
    def notes(self) -> list[str]: ...

def tune(
    target: dict[str, Any],
    out: Optional[str],
    fresh: bool,
    progress: Optional[Callable[[str, float, str], object]],
    note: Callable[[str], object],
) -> tuple[Path, list[str]]: ...
def results_folder() -> Path: ...
def image_paths(path: str | PathLike[str]) -> tuple[list[Path], Optional[str]]: ...
