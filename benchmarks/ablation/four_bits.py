"""Other people's four-bit weights, in blocks along the inputs, activations in float.

What our plans leave in float stays in float here too: embedders, modulation and the final
projection. So do convolutions: ONNX Runtime and ModelOpt code none, NNCF none below eight bits.
"""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from benchmarks.ablation.folded import folded_model, kept_in_float
from benchmarks.ablation.modelopt_ptq import own_folder
from benchmarks.ablation.nncf_ptq import in_openvino
from benchmarks.ablation.onnxruntime_ptq import Recorded
from benchmarks.ablation.subject import Subject
from segquant_trt.records.recordings import Array

_FLOAT_ACTIVATIONS, _INT8_ACTIVATIONS = 1, 4
"""Accuracy levels of MatMulNBits."""


def weights_with_onnxruntime(
    subject: Subject, out: Path, algorithm: str, block: int, *, int8_activations: bool
) -> None:
    """Write a model with MatMulNBits to `out`."""
    source = folded_model(subject, out.parent / "folded")
    kept = kept_in_float(source, subject, "linears")
    level = _INT8_ACTIVATIONS if int8_activations else _FLOAT_ACTIVATIONS
    model = onnx.load(source)
    _name_nodes(model)
    started = out.with_suffix(".started.onnx")
    if algorithm.startswith("gptq"):
        scheme = "asym" if algorithm.endswith("asymmetric") else "sym"
        model = _gptq(model, subject, kept, block, scheme, level)
    else:
        model = _data_free(model, kept, algorithm, block, level)
    onnx.save(model, started)
    started.rename(out)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give nodes without a name one: GPTQ and k-quant sort nodes by name."""
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"unnamed-{index}"


def _data_free(
    model: onnx.ModelProto, kept: list[str], algorithm: str, block: int, level: int
) -> onnx.ModelProto:
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    config = {
        "k-quant": nbits.KQuantWeightOnlyQuantConfig(),
        "hqq": nbits.HQQWeightOnlyQuantConfig(block_size=block),
    }.get(algorithm)
    quantizer = nbits.MatMulNBitsQuantizer(
        model,
        block_size=block,
        is_symmetric=algorithm == "rtn",
        accuracy_level=level,
        nodes_to_exclude=kept,
        algo_config=config,
    )
    quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def _gptq(
    model: onnx.ModelProto, subject: Subject, kept: list[str], block: int, scheme: str, level: int
) -> onnx.ModelProto:
    """What MatMulNBitsQuantizer calls for GPTQ; it would forget the exclusions on the way."""
    from onnxruntime.quantization.neural_compressor.weight_only import gptq_quantize

    quantized = gptq_quantize(
        model,
        _pairs(subject),
        weight_config=dict.fromkeys(kept, "fp32"),
        group_size=block,
        scheme=scheme,
        n_samples=-1,
        accuracy_level=level,
    )
    found: onnx.ModelProto = quantized.model
    return found


def _pairs(subject: Subject) -> Iterator[tuple[dict[str, Array], None]]:
    return ((call, None) for call in subject.calls())


def weights_with_modelopt(subject: Subject, out: Path, calibration: str, block: int) -> None:
    """Write a model to `out` whose weights stand behind a DequantizeLinear in blocks."""
    from modelopt.onnx.quantization import quantize

    _build_modelopts_packing()
    source = folded_model(subject, out.parent / "folded")
    kept = kept_in_float(source, subject, "linears")
    started = own_folder(out) / "started.onnx"
    quantize(
        str(source),
        quantize_mode="int4",
        calibration_method=calibration,
        calibration_data_reader=Recorded(subject),
        calibration_eps=["cpu"],
        block_size=block,
        nodes_to_exclude=[f"^{re.escape(name)}$" for name in kept],
        high_precision_dtype="fp32",
        use_external_data_format=False,
        output_path=str(started),
        log_level="WARNING",
    )
    started.rename(out)


def _build_modelopts_packing() -> None:
    """Have its extension compiled where no project is: setuptools would build that one instead."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        try:
            importlib.import_module("modelopt.onnx.quantization.extensions")
        finally:
            os.chdir(here)


def weights_with_nncf(subject: Subject, out: Path, treatments: tuple[str, ...], block: int) -> None:
    """Write an OpenVINO model to `out` and its weights beside it."""
    import nncf
    import openvino

    source = folded_model(subject, out.parent / "folded")
    model = openvino.Core().read_model(source)
    _transpose_weights(model)
    kept = in_openvino(model, kept_in_float(source, subject, "linears"))
    calibrated: dict[str, Any] = {}
    if treatments:
        calibrated = {
            "dataset": nncf.Dataset(list(subject.calls(1))),
            "subset_size": subject.call_count(1),
            "awq": "awq" in treatments,
            "scale_estimation": "scale" in treatments,
            "gptq": "gptq" in treatments,
        }
    compressed = nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        group_size=block,
        all_layers=True,
        backup_mode=nncf.BackupMode.NONE,
        ignored_scope=nncf.IgnoredScope(names=kept),
        **calibrated,
    )
    started = out.with_suffix(".started.xml")
    openvino.save_model(compressed, started, compress_to_fp16=False)
    started.with_suffix(".bin").rename(out.with_suffix(".bin"))
    started.rename(out)


def _transpose_weights(model: Any) -> None:
    """Store the weights of products [N, K]: of [K, N] NNCF's scale estimation makes noise."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or node.get_attributes()["transpose_b"]:
            continue
        weight = node.input_value(1).get_node()
        if weight.get_type_name() != "Constant" or len(weight.data.shape) != 2:
            continue
        transposed = opset13.constant(weight.data.T.copy())
        product = opset13.matmul(
            node.input_value(0), transposed, node.get_attributes()["transpose_a"], True
        )
        product.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(product.output(0))
