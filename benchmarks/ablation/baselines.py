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
from typing import Literal, TypeAlias

from typing_extensions import assert_never

from benchmarks.ablation.artifact import Artifact
from benchmarks.ablation.folded import Scope
from benchmarks.ablation.subject import Subject
from segquant_trt.records import Target
from segquant_trt.records.child import die_with_parent

SCOPES: tuple[Scope, ...] = ("default", "excluded", "linears")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntimeStatic:
    """`onnxruntime.quantization.quantize_static`: Q/DQ, uint8 activations, int8 weight channels.

    The recipe of its documentation for CPUs with VNNI.
    """

    calibration: Literal["MinMax", "Percentile", "Entropy"]
    scope: Scope
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


Baseline: TypeAlias = OnnxRuntimeStatic | ModelOpt | Nncf

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
    suffix = ".xml" if isinstance(baseline, Nncf) else ".onnx"
    return Artifact(path=folder / f"{name}{suffix}", runtime=baseline.runtime)


def quantise(baseline: Baseline, subject: Subject, out: Path) -> None:
    """Run the tool in this process and write `out`, which appears complete or not at all."""
    from benchmarks.ablation.modelopt_ptq import quantise_with_modelopt
    from benchmarks.ablation.nncf_ptq import quantise_with_nncf
    from benchmarks.ablation.onnxruntime_ptq import quantise_with_onnxruntime

    match baseline:
        case OnnxRuntimeStatic():
            quantise_with_onnxruntime(subject, out, baseline.calibration, baseline.scope)
        case ModelOpt():
            quantise_with_modelopt(subject, out, baseline.calibration, baseline.scope)
        case Nncf():
            quantise_with_nncf(subject, out, baseline.preset, baseline.scope)
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
