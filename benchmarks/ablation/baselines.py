"""Other people's post-training quantisers, given the inputs that our own calibration saw.

    python -m benchmarks.ablation.baselines NAME RUN OUT

quantises the model of a run folder with the baseline NAME and writes an `Artifact` into OUT. Each
runs in a process of its own: ModelOpt patches ONNX Runtime's quantiser for the whole process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from typing_extensions import assert_never

from benchmarks.ablation.artifact import Artifact
from benchmarks.ablation.folded import Scope
from benchmarks.ablation.subject import Subject
from segquant_trt.records import Target
from segquant_trt.records.child import die_with_parent

NBitsAlgorithm = Literal["rtn", "rtn-asymmetric", "k-quant", "hqq", "gptq", "gptq-asymmetric"]
Int4Calibration = Literal["rtn_dq", "awq_lite", "awq_clip", "awq_full"]
NncfTreatment = Literal["awq", "scale", "gptq"]

SCOPES: tuple[Scope, ...] = ("default", "excluded", "linears")
BLOCK = 32
"""Inputs that share the scale of a four-bit weight, as in our own weight-only plans."""

_NBITS: tuple[NBitsAlgorithm, ...] = get_args(NBitsAlgorithm)
_INT4_CALIBRATIONS: tuple[Int4Calibration, ...] = get_args(Int4Calibration)
_NNCF_TREATMENTS: tuple[tuple[NncfTreatment, ...], ...] = (
    (), ("awq",), ("scale",), ("gptq",), ("awq", "scale"), ("awq", "scale", "gptq"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeStatic:
    """`onnxruntime.quantization.quantize_static`: Q/DQ, uint8 activations, int8 weight channels.

    The recipe of its documentation for CPUs with VNNI; its weights can have four bits, too.
    """

    calibration: Literal["MinMax", "Percentile", "Entropy"]
    scope: Scope
    weight_bits: Literal[8, 4] = 8
    runtime: Target = "onnxruntime"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOpt:
    """NVIDIA's `modelopt.onnx.quantization` in INT8: symmetric, for TensorRT.

    ONNX Runtime runs such linears in float (no Q behind them); OpenVINO runs them in integers.
    """

    calibration: Literal["max", "entropy"]
    scope: Scope
    runtime: Target = "openvino"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nncf:
    """OpenVINO's `nncf.quantize` on the OpenVINO model, as for a transformer.

    Its SmoothQuant (alpha 0.95) and bias correction are on, as they are by default.
    """

    preset: Literal["MIXED", "PERFORMANCE"]
    scope: Scope
    runtime: Target = "openvino"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeNBits:
    """ONNX Runtime's `matmul_nbits_quantizer`: MatMulNBits in place of every MatMul.

    `activation_bits` 8: its kernels code every block of activations as they come.
    """

    algorithm: NBitsAlgorithm
    activation_bits: Literal[16, 8] = 16
    runtime: Target = "onnxruntime"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptInt4:
    """NVIDIA's `modelopt.onnx.quantization` in INT4: DequantizeLinear in front of every MatMul."""

    calibration: Int4Calibration
    runtime: Target = "onnxruntime"


@dataclass(frozen=True, slots=True, kw_only=True)
class NncfInt4:
    """OpenVINO's `nncf.compress_weights` in INT4_SYM, data-free unless a treatment is named.

    `activation_bits` 8: the runtime codes every block of activations as they come.
    """

    treatments: tuple[NncfTreatment, ...] = ()
    activation_bits: Literal[16, 8] = 16
    runtime: Target = "openvino"


Int8: TypeAlias = OnnxRuntimeStatic | ModelOpt | Nncf
Int4: TypeAlias = OnnxRuntimeNBits | ModelOptInt4 | NncfInt4
Baseline: TypeAlias = Int8 | Int4

BASELINES: dict[str, Baseline] = {
    **{
        f"ort-{calibration.lower()}-{scope}": OnnxRuntimeStatic(
            calibration=calibration, scope=scope
        )
        for calibration in ("MinMax", "Percentile", "Entropy")
        for scope in SCOPES
    },
    **{
        f"modelopt-{calibration}-{scope}": ModelOpt(calibration=calibration, scope=scope)
        for calibration in ("max", "entropy")
        for scope in SCOPES
    },
    **{
        f"nncf-{preset.lower()}-{scope}": Nncf(preset=preset, scope=scope)
        for preset in ("MIXED", "PERFORMANCE")
        for scope in SCOPES
    },
    **{
        f"ort-int4-{calibration.lower()}-static": OnnxRuntimeStatic(
            calibration=calibration, scope="linears", weight_bits=4
        )
        for calibration in ("MinMax", "Percentile")
    },
    **{f"ort-int4-{algorithm}": OnnxRuntimeNBits(algorithm=algorithm) for algorithm in _NBITS},
    **{
        f"modelopt-int4-{calibration.replace('_', '-')}": ModelOptInt4(calibration=calibration)
        for calibration in _INT4_CALIBRATIONS
    },
    **{
        f"nncf-int4-{'-'.join(treatments) or 'rtn'}": NncfInt4(treatments=treatments)
        for treatments in _NNCF_TREATMENTS
    },
    **{
        f"ort-int4-{algorithm}-dynamic": OnnxRuntimeNBits(algorithm=algorithm, activation_bits=8)
        for algorithm in _NBITS
    },
    **{
        f"nncf-int4-{'-'.join(treatments) or 'rtn'}-dynamic": NncfInt4(
            treatments=treatments, activation_bits=8
        )
        for treatments in _NNCF_TREATMENTS
    },
}


def quantised(name: str, subject: Subject, folder: Path) -> Artifact:
    """The artifact of a baseline in `folder`, made by a child process unless it is there.

    Raises:
        RuntimeError: the tool failed; its last lines say why.
    """
    artifact = place(name, folder)
    if not artifact.path.exists():
        arguments = ["-m", "benchmarks.ablation.baselines", name, str(subject.run), str(folder)]
        done = subprocess.run(
            [sys.executable, *arguments, f"--parent={os.getpid()}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed: " + "\n".join(done.stderr.splitlines()[-3:]))
    return artifact


def place(name: str, folder: Path) -> Artifact:
    """Where the baseline's artifact is, or will be."""
    baseline = BASELINES[name]
    suffix = ".xml" if isinstance(baseline, Nncf | NncfInt4) else ".onnx"
    dynamic = isinstance(baseline, NncfInt4) and codes_as_it_runs(name)
    return Artifact(
        path=folder / f"{name}{suffix}",
        runtime=baseline.runtime,
        dynamic_block=BLOCK if dynamic else 0,
    )


def codes_as_it_runs(name: str) -> bool:
    """Whether float activations are coded when the runtime multiplies by four-bit weights."""
    baseline = BASELINES[name]
    return isinstance(baseline, OnnxRuntimeNBits | NncfInt4) and baseline.activation_bits == 8


def quantise(baseline: Baseline, subject: Subject, out: Path) -> None:
    """Run the tool in this process and write `out`, which appears complete or not at all."""
    if isinstance(baseline, OnnxRuntimeNBits | ModelOptInt4 | NncfInt4):
        _quantise_to_int4(baseline, subject, out)
    else:
        _quantise_to_int8(baseline, subject, out)


def _quantise_to_int8(baseline: Int8, subject: Subject, out: Path) -> None:
    from benchmarks.ablation.modelopt_ptq import quantise_with_modelopt
    from benchmarks.ablation.nncf_ptq import quantise_with_nncf
    from benchmarks.ablation.onnxruntime_ptq import quantise_with_onnxruntime

    match baseline:
        case OnnxRuntimeStatic():
            quantise_with_onnxruntime(
                subject, out, baseline.calibration, baseline.scope, baseline.weight_bits
            )
        case ModelOpt():
            quantise_with_modelopt(subject, out, baseline.calibration, baseline.scope)
        case Nncf():
            quantise_with_nncf(subject, out, baseline.preset, baseline.scope)
        case _:
            assert_never(baseline)


def _quantise_to_int4(baseline: Int4, subject: Subject, out: Path) -> None:
    from benchmarks.ablation.four_bits import (
        weights_with_modelopt,
        weights_with_nncf,
        weights_with_onnxruntime,
    )

    match baseline:
        case OnnxRuntimeNBits():
            coded = baseline.activation_bits == 8
            weights_with_onnxruntime(
                subject, out, baseline.algorithm, BLOCK, int8_activations=coded
            )
        case ModelOptInt4():
            weights_with_modelopt(subject, out, baseline.calibration, BLOCK)
        case NncfInt4():
            weights_with_nncf(subject, out, baseline.treatments, BLOCK)
        case _:
            assert_never(baseline)


def main() -> None:
    """Quantise in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=BASELINES)
    parser.add_argument("run", type=Path, help="a run folder of segquant-trt compile")
    parser.add_argument("out", type=Path, help="folder for the quantised model")
    parser.add_argument("--parent", type=int, help="process with which to end")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = place(arguments.name, arguments.out).path
    quantise(BASELINES[arguments.name], Subject.of(arguments.run), out)
    print(out)


if __name__ == "__main__":
    main()
