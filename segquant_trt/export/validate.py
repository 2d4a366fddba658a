"""The exported graph in ONNX Runtime against torch in float32, at sizes that were not traced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segquant_trt.errors import SegQuantError
from segquant_trt.export.sizes import CHECKED, describe, lengths_of
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.models.family import Family
from segquant_trt.models.torch_module import load_module

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# float32 on both sides; only the order of summation differs (seen: 6e-6 and less).
TOLERANCE = 5e-4


def validate(
    model_path: Path, checkpoint: Iterable[Path], family: Family, config: Mapping[str, Any]
) -> tuple[tuple[str, ...], float]:
    """The sizes checked and the largest error relative to the output's largest magnitude.

    Raises:
        SegQuantError: the error exceeds `TOLERANCE`, or ONNX Runtime refuses the graph.
    """
    import numpy as np

    files = tuple(checkpoint)
    cases = [lengths_of(family.sizes(config), units) for units in CHECKED]
    inputs = [family.example_inputs(config, lengths, seed=7) for lengths in cases]
    expected = _in_torch(files, family, config, inputs)
    actual = _in_onnxruntime(model_path, files[0].parent, inputs)
    worst = 0.0
    for lengths, want, got in zip(cases, expected, actual, strict=True):
        if not np.isfinite(want).all():
            culprit = Weights(load_graph(model_path), files[0].parent).first_not_finite()
            because = f": weight '{culprit}' holds some" if culprit else ""
            raise SegQuantError(
                f"{family.class_name} gives NaN or infinity in float32 at "
                f"{describe(lengths)}{because}",
                hint="fetch the checkpoint again, or repair the training run that wrote it",
            )
        scale = float(np.abs(want).max()) or 1.0
        error = float(np.abs(got - want).max()) / scale if got.shape == want.shape else float("inf")
        if not error <= TOLERANCE:
            raise SegQuantError(
                f"the exported graph differs from torch by {error:.2e} (relative) at "
                f"{describe(lengths)}; allowed: {TOLERANCE:.0e}",
                hint="this model cannot be exported faithfully by the installed torch; "
                "please report it with its config.json",
            )
        worst = max(worst, error)
    return tuple(describe(lengths) for lengths in cases), worst


def _in_torch(
    files: tuple[Path, ...],
    family: Family,
    config: Mapping[str, Any],
    cases: Iterable[Mapping[str, npt.NDArray[np.generic]]],
) -> list[npt.NDArray[np.float32]]:
    import torch

    module = load_module(files, family, config)
    with torch.inference_mode():
        return [
            module(
                **family.nest({name: torch.from_numpy(value) for name, value in case.items()}),
                return_dict=False,
            )[0].numpy()
            for case in cases
        ]


def _in_onnxruntime(
    model_path: Path, weights: Path, cases: Iterable[Mapping[str, npt.NDArray[np.generic]]]
) -> list[npt.NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(weights)
    )
    session = onnxruntime.InferenceSession(
        model_path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return [session.run(None, dict(case))[0] for case in cases]
