"""TensorRT-RTX as the judge: builds graphs one after the other in one child process.

`python -m tests.backends.tensorrt.lint.judge` is the child: one JSON request per line of standard
input, one JSON answer per line of standard output. A crash of the library is an answer too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import onnx

from segquant_trt.records.layer_report import Layer
from tests.backends.tensorrt.lint.sketch import PRODUCTS

Ending = Literal["parse-error", "build-error", "built", "crash"]
ROOT = Path(__file__).parents[4]
EIGHT = {"int8", "float8_e4m3fn"}


@dataclass(frozen=True)
class Judgement:
    """How a build ended; `eight_bit` are the products that the engine computes on codes."""

    ending: Ending
    message: str
    eight_bit: frozenset[str]


class Judge:
    """Asks the child, and starts another when the library has brought one down."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        self._folder.cleanup()

    def build(self, model: onnx.ModelProto, capability: str) -> Judgement:
        """What TensorRT-RTX makes of `model`."""
        path = Path(self._folder.name) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return self.build_file(path, capability)

    def build_file(self, path: Path, capability: str) -> Judgement:
        """As `build`, of a file with its external data beside it."""
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=ROOT,
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        request = {"model": str(path), "capability": capability}
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            return Judgement("crash", f"status {self._child.wait()}", frozenset())
        answer = json.loads(line)
        if answer["ending"] == "build-error":
            # Version 1.7.1 decides otherwise in a process in which a build has failed.
            self._child.kill()
            self._child.communicate()
        return Judgement(answer["ending"], answer["message"], frozenset(answer["eight_bit"]))


def eight_bit_nodes(layers: Sequence[Layer], products: Set[str]) -> list[str]:
    """Products that a layer multiplies on codes, or that one attention kernel on codes holds."""
    found: list[str] = []
    for layer in layers:
        nodes = [name.partition(" | ")[0] for name in layer.onnx_nodes]
        types = [use.dtype for use in layer.inputs]
        # A convolution may read a residual too; its weight is a constant then.
        weights = [*types[1:2], *(use.dtype for use in layer.constants if len(use.dims) > 1)]
        multiplies = layer.kind in ("gemm", "correlation") and bool(EIGHT.intersection(types[:1]))
        attends = layer.kind == "kgen" and len(products & set(nodes)) > 1
        if (multiplies and types[0] in weights) or (
            attends and any(types.count(kind) > 2 for kind in EIGHT)
        ):
            found += nodes
    return found


def _shapes(model: onnx.ModelProto) -> dict[str, list[list[int]]]:
    found = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if any(not dim.HasField("dim_value") for dim in dims):
            found[value.name] = [[dim.dim_value or size for dim in dims] for size in (1, 2, 4)]
    return found


def _answer(trt: Any, log: Any, request: dict[str, str]) -> dict[str, Any]:
    from segquant_trt.backends.tensorrt.rtx.layers import parse_layers
    from segquant_trt.backends.tensorrt.rtx.network import BuildJob, build_in_process
    from segquant_trt.errors import SegQuantError

    path = Path(request["model"])
    model = onnx.load(str(path), load_external_data=False)
    shapes = _shapes(model)
    products = {node.name for node in model.graph.node if node.op_type in PRODUCTS}
    job = BuildJob(model=path, origin=path, shapes=[shapes] if shapes else [], plugins=())
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log.stream:
        try:
            build_in_process(trt, log, job, request["capability"], lambda done, total: None)
        except SegQuantError as error:
            built = error.what.startswith("TensorRT-RTX cannot build")
            ending = "build-error" if built else "parse-error"
            return {"ending": ending, "message": error.what, "eight_bit": []}
        log.stream.seek(0)
        text = log.stream.read()
    eight = eight_bit_nodes(parse_layers(text), products) if "Layers:" in text else []
    return {"ending": "built", "message": "", "eight_bit": eight}


def main() -> None:
    """The child."""
    import tensorrt_rtx_bindings as trt

    from segquant_trt.backends.tensorrt.rtx.network import make_logger

    answers: IO[str] = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the library prints what it likes
    log = make_logger(trt)
    for line in sys.stdin:
        answers.write(json.dumps(_answer(trt, log, json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
