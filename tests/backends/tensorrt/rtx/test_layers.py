"""Reading the builder's list of layers: real excerpts, and made-up lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.backends.tensorrt.rtx.layers import parse_layer, parse_layers
from segquant_trt.backends.tensorrt.rtx.report import report_of
from segquant_trt.errors import SegQuantError
from segquant_trt.records.layer_report import Layer, LayerReport, TensorUse

GOLDEN = Path(__file__).parent / "golden"
TYPES = {"Half": "float16", "Int8": "int8", "FP8": "float8_e4m3fn", "Float": "float32",
         "BFloat16": "bfloat16", "Int64": "int64", "Complex9": "Complex9"}  # fmt: skip


def excerpt(name: str) -> LayerReport:
    """The report of a stored excerpt of a real log."""
    log = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")
    return report_of(log, capability="sm_89", version="1.7.1.116", seconds=0.1, engine_bytes=9)


def test_two_segments() -> None:
    layers = excerpt("segments").layers
    assert [layer.kind for layer in layers] == [
        "kgen", "signal", "gemm", "wait", "gemm", "signal", "wait", "kgen",
    ]  # fmt: skip
    first, product = layers[0], layers[2]
    assert first.inputs == (TensorUse(name="x", dims=(2, 64, 256), dtype="float16"),)
    assert {use.dtype for use in first.outputs} == {"int8"}
    assert product.name == "block.0/site/b_myl0_2"
    assert product.onnx_nodes[0] == "block.0/site/b"
    assert product.inputs[0].dims == (128, 160)
    assert product.constants[0].dims == (160, 512)
    assert product.constants[0].dtype == "int8"
    assert product.outputs[0].dtype == "float16"
    assert layers[1] == Layer(
        name=layers[1].name, kind="signal", inputs=(), constants=(), outputs=(), tactic="",
        onnx_nodes=(),
    )  # fmt: skip
    assert layers[-1].tactic == "__myl_MulMulAddAdd_0xab51661d1b90704fb5b77d12c4541646"


def test_the_rest_of_the_log() -> None:
    report = excerpt("convolution")
    assert report.weights_bytes == 58626
    assert report.scratch_bytes == 8421376
    assert [warning.strip() for warning in report.warnings] == [
        "(foreignNode) Converting conv activation scales to fp32.",
        "(foreignNode) Converting conv weight scales to fp32.",
    ]
    assert [layer.kind for layer in report.layers] == ["kgen", "correlation", "kgen"]


def test_blocks_of_several_engines_are_joined() -> None:
    log = (GOLDEN / "segments.txt").read_text(encoding="utf-8")
    assert len(parse_layers(log + "\n" + log)) == 16


NAMES = st.text(
    st.characters(exclude_characters="\n\x1f", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda text: not any(mark in text for mark in (", Layer", ", Dim", "], ", ", Tactic")))
USES = st.lists(
    st.tuples(NAMES, st.lists(st.integers(-1, 10**6), max_size=5), st.sampled_from(sorted(TYPES))),
    max_size=3,
)


def written(uses: Sequence[tuple[str, Sequence[int], str]]) -> str:
    tensors = [
        f"{{ Name: {name}, Dimensions: {numbers(dims)}, Strides: {numbers(dims)}, "
        f"StrideOrder: {numbers(range(len(dims)))}, Datatype: {dtype}, "
        "Format: (Linear) Row major linear format }"
        for name, dims, dtype in uses
    ]
    return f"[ {', '.join(tensors)}]" if tensors else "[]"


def numbers(values: Sequence[int]) -> str:
    return "[" + ",".join(map(str, values)) + "]"


def meant(uses: Sequence[tuple[str, Sequence[int], str]]) -> tuple[TensorUse, ...]:
    return tuple(
        TensorUse(name=name, dims=tuple(dims), dtype=TYPES[dtype]) for name, dims, dtype in uses
    )


@given(
    name=NAMES,
    kind=st.sampled_from(["gemm", "kgen", "correlation", "runtime_fusion"]),
    inputs=USES,
    constants=USES,
    outputs=USES,
    tactic=st.sampled_from(["", "__myelin_CASK_STUB", "__myl_Mul_0x12"]),
    event=st.sampled_from(["", ", EventId: 1", ", EventId: 12, ChainId: 0"]),
    nodes=st.lists(NAMES, max_size=4, unique=True),
)
def test_any_line_is_read_back(
    name, kind, inputs, constants, outputs, tactic, event, nodes
) -> None:
    line = (
        f"Name: {name}, LayerType: {kind}, Inputs: {written(inputs)}, "
        f"Constants: {written(constants)}, Outputs: {written(outputs)}, TacticName: {tactic}, "
        f"StreamId: 0{event}, Metadata: " + "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
    )
    layer = Layer(
        name=name, kind=kind, inputs=meant(inputs), constants=meant(constants),
        outputs=meant(outputs), tactic=tactic, onnx_nodes=tuple(nodes),
    )  # fmt: skip
    assert parse_layer(line) == layer
    assert parse_layers(f"[V] before\n[V] Layers:\n{line}\n{line}\n\nI/O Tensors:\n") == (
        layer,
        layer,
    )


@pytest.mark.parametrize("log", ["", "[V] nothing here\n", "[V] Layers:\n\nI/O Tensors:\n"])
def test_a_log_without_layers_is_refused(log: str) -> None:
    with pytest.raises(SegQuantError, match="lists no layers"):
        parse_layers(log)


@pytest.mark.parametrize(
    "spoiled",
    [
        ("LayerType: gemm", "Type: gemm"),
        (", Outputs: ", ", Results: "),
        ("Name: block.0/site/b_myl0_2", "Label: block.0/site/b_myl0_2"),
        ("StreamId: 0, Metadata", "StreamId: zero, Metadata"),
    ],
)
def test_an_unknown_form_is_refused_and_never_skipped(spoiled: tuple[str, str]) -> None:
    log = (GOLDEN / "segments.txt").read_text(encoding="utf-8")
    assert spoiled[0] in log
    with pytest.raises(SegQuantError, match=r"unknown form(.|\n)*TensorRT-RTX 1\.7"):
        parse_layers(log.replace(*spoiled))


def test_a_tensor_of_an_unknown_form_is_refused() -> None:
    log = (GOLDEN / "segments.txt").read_text(encoding="utf-8")
    with pytest.raises(SegQuantError, match="unknown form"):
        parse_layers(log.replace("Datatype: Int8", "Kind: Int8"))
