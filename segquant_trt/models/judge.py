"""The zoo's judge: does an image show the digit that it was asked to show?"""

from __future__ import annotations

from typing import Any

from segquant_trt.models.loop import Float32
from segquant_trt.records import ModelSpec

_CLASSES = 10


class DigitJudge:
    """The shipped classifier, and its features' statistics on real digits."""

    def __init__(self) -> None:
        from segquant_trt.models.zoo import frechet_reference, load_classifier

        self._classifier: Any = load_classifier()
        self.reference = frechet_reference()

    def predict(self, images: Float32) -> tuple[Any, Float32]:
        """Class int64[N] and features float32[N, F] of images float32[N, 16, 16] in 0..1."""
        labels, features = self._classifier.predict(images)
        return labels, features

    def wanted(self, seed: int) -> int:
        """The class that the zoo's loop conditions on for this seed."""
        return seed % _CLASSES


def open_judge(spec: ModelSpec) -> DigitJudge | None:
    """The judge of a zoo model; None for any other model."""
    return DigitJudge() if spec.source.startswith("zoo:") else None
