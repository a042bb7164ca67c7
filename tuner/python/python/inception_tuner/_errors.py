"""The exceptions. What the system refuses of a file is an `OSError`, such as `FileNotFoundError`."""

from ._native import FidError, ImageError, ModelError, NotFiniteError, PlanError, TuneError, WeightsError

__all__ = ["FidError", "ImageError", "ModelError", "NotFiniteError", "PlanError", "TuneError", "WeightsError"]
