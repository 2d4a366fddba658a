"""Teacher-forced comparison: every denoiser sees the float trajectory's inputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from segquant_trt.models.loop import Array, Denoise, Float32
from segquant_trt.records import StepFigure
from segquant_trt.verify.figures import sqnr_db


class TeacherForced:
    """A denoiser that answers as `reference` does and notes how far the others are off.

    Usable in place of the float denoiser in any loop; a step is a distinct timestep value.

    Args:
        reference: the float denoiser.
        quantized: the denoiser under test.
        float16: the noise floor, or None.
        timestep: name of the timestep input; without one all calls are one step at 0.

    `floor` may be switched off for further calls: the noise floor needs fewer samples.
    """

    def __init__(
        self,
        reference: Denoise,
        quantized: Denoise,
        float16: Denoise | None,
        *,
        timestep: str | None,
    ) -> None:
        self._reference = reference
        self._quantized = quantized
        self._float16 = float16
        self._timestep = timestep
        self.floor = float16 is not None
        self._quantized_db: dict[float, list[float]] = defaultdict(list)
        self._float16_db: dict[float, list[float]] = defaultdict(list)

    def __call__(self, inputs: Mapping[str, Array]) -> Float32:
        """Answer with the reference's prediction."""
        reference = self._reference(inputs)
        steps = self._steps(inputs, len(reference))
        _note(self._quantized_db, steps, sqnr_db(reference, self._quantized(inputs)))
        if self._float16 is not None and self.floor:
            _note(self._float16_db, steps, sqnr_db(reference, self._float16(inputs)))
        return reference

    def _steps(self, inputs: Mapping[str, Array], batch: int) -> Sequence[float]:
        if self._timestep is None:
            return [0.0] * batch
        values = np.asarray(inputs[self._timestep], dtype=np.float64).ravel()
        return np.broadcast_to(values, (batch,)).tolist()  # type: ignore[no-any-return]

    def figures(self) -> tuple[StepFigure, ...]:
        """One figure per step in the order met; dB averaged over samples."""
        return tuple(
            StepFigure(
                timestep=step,
                sqnr_db=float(np.mean(values)),
                sqnr_db_float16=float(np.mean(self._float16_db[step])) if self._float16 else None,
            )
            for step, values in self._quantized_db.items()
        )


def _note(
    store: dict[float, list[float]], steps: Sequence[float], decibels: Sequence[float] | Array
) -> None:
    for step, value in zip(steps, decibels, strict=True):
        store[step].append(float(value))
