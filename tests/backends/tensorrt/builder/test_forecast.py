"""The memory forecast, against sums done by hand, and dry runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segquant_trt.backends.tensorrt.builder.build import build_engine
from segquant_trt.backends.tensorrt.builder.forecast import MemoryForecast, check_memory, forecast
from segquant_trt.backends.tensorrt.builder.request import prepare
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import BuildOptions, PoolLimit, ShapeProfile, ShapeRange
from tests.contract.tensorrt.fake import VERSIONS
from tests.contract.tensorrt.workbench import GPU, OUT, WIDTH, bench, device, request

GIB = 2**30


def rows(least: int, most: int) -> ShapeProfile:
    bounds = ShapeRange(name="x", minimum=(least, 7), optimum=(least, 7), maximum=(most, 7))
    return ShapeProfile(inputs=(bounds,))


def chain(nodes: list[onnx.NodeProto], *constants: onnx.TensorProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)], list(constants),
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def test_peak_is_of_values_that_live_at_once(tmp_path: Path) -> None:
    # a and b live together until c; d takes b's place; e is the output.
    model = chain(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Concat", ["a", "a"], ["b"], axis=1),
            helper.make_node("Concat", ["b", "a"], ["c"], axis=1),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("Relu", ["d"], ["y"]),
        ]
    )
    found = forecast(model, tmp_path, [rows(1, 13), rows(2, 5)], BuildOptions())
    value = 13 * 7 * 2
    assert found.activations_bytes == (1 + 2 + 3) * value  # a, b, c; then c, d: as much
    assert found.io_bytes == value + 3 * value
    assert (found.weights_bytes, found.unknown_values) == (0, 0)


def test_decoded_codes_take_no_memory_and_keep_the_codes_alive(tmp_path: Path) -> None:
    small = request(tmp_path)
    model = onnx.load(small.onnx, load_external_data=False)
    found = forecast(model, tmp_path, small.options.profiles, BuildOptions())
    # The codes of x are one byte each, as long as the product needs them; then the product.
    assert found.activations_bytes == 17 * WIDTH + 17 * OUT * 2
    assert found.io_bytes == 2 * 17 * (WIDTH + OUT)
    # Codes, their scales and the bias; the scale and zero point of x.
    assert found.weights_bytes == WIDTH * OUT + 2 * OUT + 2 * OUT + 2 + 1


def test_what_follows_from_constants_takes_no_memory(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((7, 100), np.float16), "w")
    model = chain(
        [
            helper.make_node("Transpose", ["w"], ["t"]),
            helper.make_node("Transpose", ["t"], ["u"]),
            helper.make_node("MatMul", ["x", "u"], ["m"]),
            helper.make_node("Relu", ["m"], ["y"]),
        ],
        weight,
    )
    found = forecast(model, tmp_path, [rows(1, 3)], BuildOptions())
    assert found.activations_bytes == 3 * 100 * 2
    assert found.weights_bytes == 7 * 100 * 2


def test_types_follow_casts_and_shapes(tmp_path: Path) -> None:
    model = chain(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Relu", ["f"], ["g"]),
            helper.make_node("Cast", ["g"], ["y"], to=TensorProto.FLOAT16),
        ]
    )
    found = forecast(model, tmp_path, [rows(1, 11)], BuildOptions())
    assert found.activations_bytes == 2 * 11 * 7 * 4


def test_weights_count_in_the_type_that_they_are_used_in(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((7, 9), np.float16), "w")
    model = chain(
        [
            helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["wide"], ["t"]),
            helper.make_node("Transpose", ["t"], ["u"]),
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "u"], ["y"]),
        ],
        weight,
        numpy_helper.from_array(np.ones(1000, np.float32), "unused"),
    )
    found = forecast(model, tmp_path, [rows(1, 3)], BuildOptions())
    assert found.weights_bytes == 7 * 9 * 4


def test_fused_attention_stores_no_scores(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["k"]),
        helper.make_node("Transpose", ["k"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["scores"]),
        helper.make_node("Mul", ["scores", "s"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["p"]),
        helper.make_node("MatMul", ["p", "x"], ["y"]),
    ]
    scale = numpy_helper.from_array(np.array(0.5, np.float16), "s")
    found = forecast(chain(nodes, scale), tmp_path, [rows(1, 513)], BuildOptions())
    assert found.activations_bytes == 2 * 513 * 7 * 2  # k and t; 513 x 513 is nowhere
    # Probabilities that somebody else reads are there.
    nodes.append(helper.make_node("Relu", ["p"], ["z"]))
    found = forecast(chain(nodes, scale), tmp_path, [rows(1, 513)], BuildOptions())
    assert found.activations_bytes >= 513 * 513 * 2


def test_unknown_sizes_are_counted_not_guessed(tmp_path: Path) -> None:
    model = chain(
        [
            helper.make_node("NonZero", ["x"], ["z"]),
            helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT16),
        ]
    )
    found = forecast(model, tmp_path, [rows(1, 3)], BuildOptions())
    assert found.unknown_values == 1
    assert any("1 inner values of unknown size" in line for line in found.lines())


FORECAST = MemoryForecast(
    weights_bytes=10 * GIB, activations_bytes=4 * GIB, io_bytes=0, workspace_bytes=None,
    unknown_values=0,
)  # fmt: skip


def test_memory_is_checked() -> None:
    check_memory(FORECAST, "GPU", 14 * GIB, BuildOptions())
    with pytest.raises(SegQuantError, match=r"need at least 14.00 GiB .* 13.00 GiB are free"):
        check_memory(FORECAST, "GPU", 13 * GIB, BuildOptions())
    check_memory(FORECAST, "GPU", 5 * GIB, BuildOptions(weight_streaming=True))


def test_a_build_that_will_not_fit_is_not_begun(tmp_path: Path) -> None:
    found, script = bench(VERSIONS[-1], device=device(free_bytes=1000))
    with pytest.raises(SegQuantError, match="where 1000 bytes are free"):
        build_engine(request(tmp_path), tensorrt=found)
    assert script.names() == []
    unknown, _ = bench(VERSIONS[-1], device=device(free_bytes=None))
    build_engine(request(tmp_path), tensorrt=unknown)


def test_a_dry_run_needs_no_gpu(tmp_path: Path) -> None:
    limit = PoolLimit(pool="workspace", size_bytes=2 * GIB)
    wanted = request(tmp_path, pools=(limit,), timing_cache=None)
    preview = prepare(wanted).preview
    text = "\n".join(preview.lines())
    assert "codes in the graph: int8" in text
    assert "profile 0: x 1x64 to 17x64" in text
    assert "at least; estimated from the graph, not measured" in text
    assert "workspace limit       2.00 GiB" in text
    assert "timing cache: decided on the GPU that builds" in text
    assert f"trtexec --onnx={tmp_path}/small.onnx" in text
    assert not (tmp_path / "small.engine").exists()
    assert preview.estimate.device_build_bytes == preview.estimate.device_run_bytes + 2 * GIB

    there = prepare(wanted, GPU, VERSIONS[-1])
    assert there.preview.timing_cache is not None
    assert "sm9.0" in str(there.request.options.timing_cache)
    assert f"--timingCacheFile={there.preview.timing_cache}" in there.preview.command


def test_precisions_are_checked_before_anything_is_built(tmp_path: Path) -> None:
    ampere = replace(GPU, name="NVIDIA A100", compute_capability=(8, 0))
    found, script = bench(VERSIONS[-1], device=ampere)
    wanted = request(tmp_path, codes=TensorProto.FLOAT8E4M3FN)
    assert prepare(wanted).preview.precisions == ("fp8",)
    with pytest.raises(SegQuantError, match=r"FP8 codes; a GPU of compute capability 8\.0"):
        build_engine(wanted, tensorrt=found)
    assert script.names() == []
