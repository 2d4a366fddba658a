"""NNCF's post-training quantisation of the OpenVINO model.

Calibrated on single samples, as NNCF asks for transformers: its statistics take the leading axis
for the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ablation.folded import Scope, folded_model, kept_in_float
from benchmarks.ablation.subject import Subject
from segquant_trt.backends.openvino.probe import exact_way

WITHOUT_BIAS = "/WithoutBiases"
"""What OpenVINO appends to the name of a Gemm whose bias it adds in a node of its own."""


def quantise_with_nncf(subject: Subject, out: Path, preset: str, scope: Scope) -> None:
    """Write an OpenVINO model to `out` and its weights beside it."""
    import nncf
    import openvino

    source = folded_model(subject, out.parent / "folded")
    model = openvino.Core().read_model(source)
    kept = in_openvino(model, kept_in_float(source, subject, scope))
    # Half the weights' range where int8 sums saturate, which is what NNCF recommends for such CPUs.
    overflow = None if "split" not in exact_way() else nncf.OverflowFix.ENABLE
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(subject.calls(1))),
        preset=nncf.QuantizationPreset[preset],
        subset_size=subject.call_count(1),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
    )
    started = out.with_suffix(".started.xml")
    openvino.save_model(quantized, started, compress_to_fp16=False)
    started.with_suffix(".bin").rename(out.with_suffix(".bin"))
    started.rename(out)


def in_openvino(model: Any, names: Sequence[str]) -> list[str]:
    """The nodes' names in the OpenVINO model, where a Gemm is a MatMul and an Add."""
    present = {node.get_friendly_name() for node in model.get_ordered_ops()}
    both = [name for node in names for name in (node, f"{node}{WITHOUT_BIAS}")]
    return [name for name in both if name in present]
