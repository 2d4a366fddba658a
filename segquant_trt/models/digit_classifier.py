"""The judge of generated digits: a small CNN in ONNX and the statistics of its features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import MissingDependencyError, SegQuantError
from segquant_trt.models.loop import Float32

if TYPE_CHECKING:
    import onnxruntime

_DATA = Path(__file__).parent / "zoo_data"
_BATCH = 256


class DigitClassifier:
    """Recognises digits; one instance holds one ONNX Runtime session."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def predict(self, images: Float32) -> tuple[npt.NDArray[np.int64], Float32]:
        """Labels int64[N] and penultimate features float32[N, F] of float32[N, 16, 16] in 0..1.

        Raises:
            SegQuantError: the images have another shape.
        """
        if images.ndim != 3 or images.shape[1:] != (16, 16):
            raise SegQuantError(
                f"images have shape {images.shape}, expected (N, 16, 16)",
                hint="pass the images that ZooLoop.sample returned",
            )
        labels = [np.zeros(0, dtype=np.int64)]
        features = []
        for at in range(0, max(1, len(images)), _BATCH):
            batch = images[at : at + _BATCH, None].astype(np.float32)
            logits, chunk = self._session.run(["logits", "features"], {"images": batch})
            labels.append(np.asarray(logits).argmax(axis=1).astype(np.int64))
            features.append(np.asarray(chunk, dtype=np.float32))
        return np.concatenate(labels), np.concatenate(features)


def load_classifier() -> DigitClassifier:
    """The classifier that ships with the package.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "onnxruntime", extra=None, why="judging generated digits"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return DigitClassifier(
        onnxruntime.InferenceSession(
            (_DATA / "digits-classifier.onnx").read_bytes(),
            options,
            providers=["CPUExecutionProvider"],
        )
    )


def frechet_reference() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean float64[F] and covariance float64[F, F] of the classifier's features on all digits.

    The reference side of the Frechet distance (Heusel et al., 1706.08500, equation 6).
    """
    from safetensors.numpy import load_file

    reference = load_file(_DATA / "digits-reference.safetensors")
    mean, covariance = reference["mean"], reference["covariance"]
    return mean.astype(np.float64), covariance.astype(np.float64)
