"""Drives the builder for data centres with TensorRT-RTX's real module, which needs no GPU.

The two are one code base with one Python API. What RTX has of its own, the compute capability to
build for, is set before our code gets the configuration. Loading an engine needs a GPU, so this
ends with the serialised engine. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import tensorrt_rtx_bindings as real

from segquant_trt.backends.tensorrt.builder.build import _serialized, _verbose_log
from segquant_trt.backends.tensorrt.builder.request import prepare
from segquant_trt.backends.tensorrt.installed import Installed, Log
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import PoolLimit, ShapeProfile, ShapeRange
from tests.contract.tensorrt.workbench import device, request


class ForAda:
    """A builder whose configurations are for sm_89."""

    def __init__(self, logger: Any) -> None:
        self._builder = real.Builder(logger)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def create_builder_config(self) -> Any:
        config = self._builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(real.ComputeCapability.SM89, 0)
        return config


class Shares:
    def __init__(self, stop_at: int | None) -> None:
        self.shares: list[int] = []
        self._stop_at = stop_at

    def note(self, text: str) -> None:
        pass

    def update(self, label: str, done: int, total: int | None) -> None:
        self.shares.append(done)
        if self._stop_at is not None and done >= self._stop_at:
            raise KeyboardInterrupt


def main(folder: Path, options: dict[str, Any], *, damage: str, stop_at: int | None) -> None:
    module = SimpleNamespace(**vars(real))
    module.Builder = ForAda
    found = Installed(
        module=module, version=real.__version__, device=device(compute_capability=(8, 9)), log=Log()
    )
    wanted = request(folder, verbose_log=folder / "log.txt", **options)
    if damage:
        wanted.onnx.write_bytes(wanted.onnx.read_bytes().replace(b"MatMul", damage.encode()))
    shares = Shares(stop_at)
    prepared = prepare(wanted, found.device, found.version)
    estimate = prepared.preview.estimate
    answer: dict[str, Any] = {
        "forecast": {"Weights": estimate.weights_bytes, "Activation": estimate.activations_bytes}
    }
    try:
        with _verbose_log(found, prepared):
            answer["bytes"] = len(_serialized(found, prepared, shares))
    except SegQuantError as error:
        answer["error"] = error.what
    except KeyboardInterrupt:
        answer["error"] = "interrupted"
    print(json.dumps(answer | {"shares": shares.shares, "warnings": found.log.warnings}))


if __name__ == "__main__":
    names = {"PoolLimit": PoolLimit, "ShapeProfile": ShapeProfile, "ShapeRange": ShapeRange}
    main(Path(sys.argv[1]), eval(sys.argv[2], names), **json.loads(sys.argv[3]))
