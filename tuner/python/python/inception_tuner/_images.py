"""Images as the native part takes them: one kind an argument, arrays contiguous and of native byte order."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from . import _native
from ._log import note

def list_images(folder: Union[str, os.PathLike], suffixes: Optional[Collection[str]] = None) -> list[Path]:
    """The images in a folder and all below it, sorted by path, as the command line takes them.

    What is an image is told by the end of the name; hidden files and folders are left out.

    :param suffixes: Those of these endings, such as `".png"`.
    :raises ImageError: There is no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = NotADirectoryError if folder.exists() else FileNotFoundError
        raise kind(f"{folder}: found no folder, expected one of images")
    paths, _ = _native.image_paths(folder)
    return [Path(path) for path in paths if suffixes is None or Path(path).suffix.lower() in suffixes]


def in_set(path: Union[str, os.PathLike]) -> list[str]:
    """The images that a folder, a pattern or a list stands for."""
    paths, text = _native.image_paths(path)
    if text is not None:
        note(text)
    return [os.fspath(path) for path in paths]


def is_values(images: Any) -> bool:
    """Whether this is an array of preprocessed images."""
    return isinstance(images, np.ndarray) and images.dtype.kind == "f" and images.ndim == 4


def values(images: np.ndarray) -> np.ndarray:
    """Preprocessed images; no copy of what is contiguous float32."""
    return _contiguous(images, "images")


def split(images: Any, first: int = 0) -> list[Any]:
    """One or several images as a list of such as the native part takes."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        array = _contiguous(images, "images")
        return [array[number] for number in range(len(array))]
    one = (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray)
    if isinstance(images, one) or not isinstance(images, Iterable):
        images = [images]
    return [_one(image, f"images[{number}]") for number, image in enumerate(images, first)]


def _one(image: Any, name: str) -> Any:
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, np.ndarray):
        return _contiguous(image, name)
    if _is_pillow(image):
        return image
    if hasattr(image, "__array__"):
        return _contiguous(np.asarray(image), name)
    raise TypeError(f"{name}: found {type(image).__name__}, expected a path, bytes, an array or a PIL image")


def _contiguous(array: np.ndarray, name: str) -> np.ndarray:
    native = array.dtype.newbyteorder("=")
    if native not in (np.float32, np.uint8, np.uint16):
        raise ValueError(
            f"{name}: found type {array.dtype}, expected float32 (preprocessed), or uint8 or uint16 (pixels)"
        )
    return np.require(array, native, ["C_CONTIGUOUS", "ALIGNED"])


def _is_pillow(image: Any) -> bool:
    # Pillow need not be installed: who has such an object has it.
    return any(cls.__module__ == "PIL.Image" and cls.__name__ == "Image" for cls in type(image).__mro__)


def decode(image: Any, name: str) -> np.ndarray:
    """The pixels of a PIL image, as those of a file would be: alpha is ignored, 16 bits stay.

    Called by the threads that load images.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"{name}: found a PIL image of mode {image.mode}, expected one whose white is known")
    if image.mode.startswith("I;16"):
        return np.ascontiguousarray(np.asarray(image), dtype=np.uint16)
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    return np.ascontiguousarray(np.asarray(image))
