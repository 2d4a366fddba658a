"""Triton's Python backend: the model that it instantiates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Only the server's own Python process has this module.
import triton_python_backend_utils as backend  # type: ignore[import-not-found]

from segquant_trt.errors import SegQuantError
from segquant_trt.package.served.calls import CallError, answers
from segquant_trt.package.served.graphs import ServedGraphs
from segquant_trt.package.served.sessions import runtime_version


class TritonPythonModel:
    """A denoiser. One instance runs in one process and gets one `execute` at a time."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Open the graphs; an error here keeps the model from being served, and is logged."""
        folder = Path(arguments["model_repository"]) / arguments["model_version"]
        given = json.loads(arguments["model_config"])["parameters"]
        numbers = {name: int(given[name]["string_value"]) for name in ("threads", "kept_prompts")}
        self._graphs = ServedGraphs(folder, **numbers)
        proven, found = self._graphs.description.onnxruntime, runtime_version()
        if found != proven:
            backend.Logger.log_warn(
                f"ONNX Runtime is {found}; the bundle was proven with {proven}: results may differ"
            )

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order."""
        description = self._graphs.description
        names = [spec.name for spec in description.inputs]
        calls = [_given(request, names) for request in requests]
        return [
            _refusal(answer)
            if isinstance(answer, SegQuantError)
            else backend.InferenceResponse([backend.Tensor(description.output.name, answer)])
            for answer in answers(self._graphs, calls)
        ]


def _given(request: Any, names: list[str]) -> dict[str, Any]:
    tensors = {name: backend.get_input_tensor_by_name(request, name) for name in names}
    return {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}


def _refusal(error: SegQuantError) -> Any:
    code = backend.TritonError
    kind = code.INVALID_ARG if isinstance(error, CallError) else code.INTERNAL
    text = f"{error.what}\nhint: {error.hint}"
    return backend.InferenceResponse(error=backend.TritonError(text, kind))
