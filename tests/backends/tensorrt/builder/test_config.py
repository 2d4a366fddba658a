"""Profiles against the network's inputs, and options that contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segquant_trt.backends.tensorrt.builder.build import build_engine
from segquant_trt.backends.tensorrt.builder.config import complete_profiles
from segquant_trt.backends.tensorrt.builder.request import precisions_of, prepare
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import BuildOptions, PoolLimit, ShapeProfile, ShapeRange
from tests.contract.tensorrt.fake import VERSIONS
from tests.contract.tensorrt.workbench import PROFILE, bench, request

INPUTS = {"x": (-1, 64), "t": (1,)}


def profile(**shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> ShapeProfile:
    return ShapeProfile(
        inputs=tuple(
            ShapeRange(name=name, minimum=low, optimum=high, maximum=high)
            for name, (low, high) in shapes.items()
        )
    )


def test_fixed_inputs_may_be_left_out_or_repeated() -> None:
    short = profile(x=((1, 64), (9, 64)))
    full = profile(x=((1, 64), (9, 64)), t=((1,), (1,)))
    assert complete_profiles((short, full), INPUTS) == [short, full]
    assert complete_profiles((), {"t": (1,)}) == []


WRONG = {
    "none given": ((), r"'x' has dynamic lengths \?x64"),
    "an input left out": ((profile(t=((1,), (1,))),), "profile 0 has no shapes for .* 'x'"),
    "an unknown input": (
        (PROFILE, profile(x=((1, 64), (1, 64)), z=((1,), (2,)))), "profile 1 has shapes for 'z'",
    ),
    "a fixed length changed": ((profile(x=((1, 64), (2, 65))),), r"but the graph's input is \?x64"),
    "another rank": ((profile(x=((1,), (2,))),), r"x 1 to 2, but the graph's input is \?x64"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_profiles_that_do_not_fit(fault: str) -> None:
    profiles, told = WRONG[fault]
    with pytest.raises(SegQuantError, match=told):
        complete_profiles(profiles, INPUTS)


def test_a_profile_that_tensorrt_refuses(tmp_path: Path) -> None:
    found, _ = bench(VERSIONS[-1], {"IBuilderConfig.add_optimization_profile": -1})
    with pytest.raises(SegQuantError, match="refuses the profile x 1x64 to 17x64"):
        build_engine(request(tmp_path), tensorrt=found)


def test_a_graph_without_outputs(tmp_path: Path) -> None:
    found, _ = bench(VERSIONS[-1], {"INetworkDefinition.num_outputs": 0})
    with pytest.raises(SegQuantError, match="no output"):
        build_engine(request(tmp_path), tensorrt=found)


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "level": ({"optimization_level": 6}, "optimization_level is 6; allowed: .* 0 to 5"),
    "no number": ({"max_tactics": True}, "max_tactics is True"),
    "hardware": ({"hardware_compatibility": "all"}, "hardware_compatibility is 'all'"),
    "refit": ({"refit": "yes"}, "refit is 'yes'; allowed: none, identical, any"),
    "stripped": ({"strip_weights": True}, "would be of no use"),
    "lean": ({"exclude_lean_runtime": True}, "only version-compatible engines hold"),
    "no plugins": (
        {"serialize_plugins": True, "version_compatible": True}, "none is named",
    ),
    "plugins inside": (
        {"serialize_plugins": True, "plugins": (Path("a.so"),)}, "only version-compatible engines",
    ),
    "pool": (
        {"pools": (PoolLimit(pool="workspace", size_bytes=-1),)}, "'workspace' of -1 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", CONTRADICTIONS)
def test_options_that_cannot_be(fault: str) -> None:
    options, told = CONTRADICTIONS[fault]
    with pytest.raises(SegQuantError, match=told):
        BuildOptions(**options)


def test_an_input_twice_in_one_profile() -> None:
    bounds = PROFILE.inputs[0]
    with pytest.raises(SegQuantError, match="'x' is named twice"):
        ShapeProfile(inputs=(bounds, bounds))


def test_graphs_that_are_incomplete(tmp_path: Path) -> None:
    wanted = request(tmp_path)
    model = onnx.load(wanted.onnx, load_external_data=False)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    wanted.onnx.write_bytes(model.SerializeToString())
    with pytest.raises(SegQuantError, match="'x' declares no shape"):
        prepare(wanted)
    wanted = request(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(SegQuantError, match="too short for weight 'codes'"):
        prepare(wanted)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(SegQuantError, match=r"weights.bin cannot be read"):
        prepare(wanted)
    wanted.onnx.write_bytes(b"no graph")
    with pytest.raises(SegQuantError, match="not a readable ONNX model"):
        prepare(wanted)
    wanted.onnx.unlink()
    with pytest.raises(SegQuantError, match="does not exist"):
        prepare(wanted)


def test_codes_are_found_wherever_they_are() -> None:
    quantize = helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=TensorProto.INT8)
    assert precisions_of(graph_of([quantize])) == ("int8",)
    zero = numpy_helper.from_array(np.zeros((), ml_dtypes.float8_e4m3fn))
    inner = [
        helper.make_node("Constant", [], ["z"], value=zero),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
    ]
    assert precisions_of(graph_of(inner)) == ("fp8",)
    function = helper.make_function(
        "ours", "F", ["x", "s"], ["q"], inner, [helper.make_opsetid("", 21)]
    )
    call = helper.make_node("F", ["x", "s"], ["q"], domain="ours")
    assert precisions_of(graph_of([quantize, call], function)) == ("fp8", "int8")
    assert precisions_of(graph_of([helper.make_node("Relu", ["x"], ["y"])])) == ()


def graph_of(nodes: list[onnx.NodeProto], *functions: onnx.FunctionProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(nodes, "g", [], []), functions=functions)


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found, _ = bench(VERSIONS[-1])
    with pytest.raises(SegQuantError, match=r"build\.txt"):
        build_engine(request(tmp_path, verbose_log=tmp_path / "file" / "build.txt"), tensorrt=found)
