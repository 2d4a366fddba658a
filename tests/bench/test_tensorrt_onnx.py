"""What is prepared, built and opened for TensorRT on a float graph, with stand-ins for both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segquant_trt.backends.tensorrt.device import Device
from segquant_trt.bench.baselines.modelopt_onnx import PRECISIONS, Precision, prepared_onnx
from segquant_trt.bench.baselines.tensorrt_onnx import TensorrtOnnx, check_arithmetic
from segquant_trt.bench.timed import Subject
from segquant_trt.errors import SegQuantError
from tests.bench.subjects import INPUTS, Sleeper
from tests.small_graphs import linear_nodes, save_graph


def device(*capability: int) -> Any:
    found = Device(
        index=0,
        name="a GPU",
        compute_capability=capability,  # type: ignore[arg-type]
        memory_bytes=1,
        free_bytes=None,
        driver="",
        cuda=(13, 0),
    )
    return lambda: found


@pytest.mark.parametrize(
    ("precision", "capability", "allowed"),
    [
        ("fp16", (7, 5), True),
        ("fp8", (8, 6), False),
        ("fp8", (8, 9), True),
        ("int8", (8, 0), True),
        ("int8", (10, 3), False),
    ],
)
def test_arithmetic_that_a_gpu_lacks_is_refused_first(
    precision: Precision, capability: tuple[int, int], allowed: bool
) -> None:
    if allowed:
        assert check_arithmetic(precision, device(*capability)).compute_capability == capability
        return
    with pytest.raises(SegQuantError, match="compute capability"):
        check_arithmetic(precision, device(*capability))


@dataclass
class Engines:
    """TensorRT as a list of what was asked of it."""

    log: list[str] = field(default_factory=list)

    def build(self, model: Path, out: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
        assert model.read_text() == "prepared"
        self.log.append(f"build {model.name} {dict(shapes)}")
        out.write_text("engine")
        return out

    def open(self, engine: Path, name: str) -> Subject:
        assert engine.read_text() == "engine"
        self.log.append(f"open {engine.name} as {name}")
        return Sleeper(name=name, device_ms=1.5)


def test_every_size_has_an_engine_of_its_own(tmp_path: Path) -> None:
    engines = Engines()

    def prepare(model: Path, out: Path, precision: Precision, inputs: Any) -> Path:
        engines.log.append(f"prepare {model.name} {precision} {inputs['x'].shape}")
        out.write_text("prepared")
        return out

    subject = TensorrtOnnx(
        name="FP8",
        inputs=INPUTS,
        model=Path("model.onnx"),
        precision="fp8",
        folder=tmp_path,
        engines=engines,
        prepare=prepare,
    )
    for batch in (1, 2):
        timed = subject.bind({"x": np.ones((batch, 3), dtype=np.float32)})
        assert timed.run() == 1.5
    assert engines.log == [
        line
        for batch in (1, 2)
        for line in (
            f"prepare model.onnx fp8 ({batch}, 3)",
            f"build fp8.onnx {{'x': ({batch}, 3)}}",
            "open fp8.engine as FP8",
        )
    ]


def linear_graph(folder: Path) -> tuple[Path, dict[str, Any]]:
    rng = np.random.default_rng(0)
    weights = {
        "fc.weight": rng.standard_normal((32, 32)).astype(np.float32),
        "fc.bias": rng.standard_normal(32).astype(np.float32),
    }
    nodes = linear_nodes("fc", "x", "y", bias=True, stored=False)
    model = save_graph(folder / "model.onnx", nodes, {"x": [4, 32]}, ["y"], weights)
    return model, {"x": rng.standard_normal((4, 32)).astype(np.float32)}


@pytest.mark.full
@pytest.mark.parametrize("precision", PRECISIONS)
def test_modelopt_writes_types_and_pairs_into_the_file(
    precision: Precision, tmp_path: Path
) -> None:
    pytest.importorskip("modelopt", reason="nvidia-modelopt is not installed")
    if precision == "fp16":
        pytest.importorskip("polygraphy", reason="AutoCast needs polygraphy")
    import onnx

    model, inputs = linear_graph(tmp_path)
    out = prepared_onnx(model, tmp_path / precision / "out.onnx", precision, inputs)
    graph = onnx.load(str(out)).graph
    types = {tensor.data_type for tensor in graph.initializer}
    operators = {node.op_type for node in graph.node}
    if precision == "fp16":
        assert onnx.TensorProto.FLOAT16 in types
        assert "DequantizeLinear" not in operators
    else:
        assert "DequantizeLinear" in operators
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_what_modelopt_says_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segquant_trt.bench.baselines import modelopt_onnx

    def failing(*_: Any, **__: Any) -> None:
        raise ValueError("no such operator\nTraceback follows")

    monkeypatch.setattr(modelopt_onnx, "_modelopt", lambda: (failing, failing))
    for precision in PRECISIONS:
        with pytest.raises(
            SegQuantError, match=r"cannot make \w+ of .*: ValueError: no such operator\n"
        ):
            prepared_onnx(tmp_path / "m.onnx", tmp_path / "o.onnx", precision, {})
