"""ONNX Runtime's static quantiser, as its documentation recommends for CPUs."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from benchmarks.ablation.folded import SITE_OPERATORS, Scope, folded_model, kept_in_float
from benchmarks.ablation.subject import Subject
from benchmarks.ablation.unshared import unshared
from segquant_trt.records.recordings import Array


class Recorded(CalibrationDataReader):
    """The calibration's calls, once or again after `rewind`."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.rewind()

    def rewind(self) -> None:
        """Begin anew."""
        self._calls = self._subject.calls()

    def get_next(self) -> dict[str, Array] | None:
        """Inputs of the next call, None after the last."""
        return next(self._calls, None)

    def get_first(self) -> dict[str, Array]:
        """Inputs of the first call."""
        return next(self._subject.calls())


def quantise_with_onnxruntime(
    subject: Subject, out: Path, calibration: str, scope: Scope, weight_bits: int
) -> None:
    """Write a Q/DQ model to `out`. Histogram methods keep every activation: some gigabytes."""
    source = folded_model(subject, out.parent / "folded")
    started = out.with_suffix(".started.onnx")
    quantize_static(
        source,
        started,
        Recorded(subject),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(SITE_OPERATORS) if scope == "linears" else None,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8 if weight_bits == 8 else QuantType.QInt4,
        nodes_to_exclude=kept_in_float(source, subject, scope),
        calibrate_method=CalibrationMethod[calibration],
    )
    onnx.save(unshared(onnx.load(started)), started)
    started.rename(out)
