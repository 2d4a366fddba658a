"""The inspector's JSON of TensorRT 10 and 11, and what is proved from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segquant_trt.backends.tensorrt.inspector import (
    check_sites,
    data_type,
    inspect_engine,
    parse_inspection,
    product_kind,
    prove_sites,
)
from segquant_trt.errors import SegQuantError
from segquant_trt.records.layer_report import Layer, LayerReport, TensorUse
from tests.contract.tensorrt.fake import VERSIONS, fake_tensorrt
from tests.contract.tensorrt.scenario import layers

# As the engine explorer's documentation shows layers with parameters of their own.
CONVOLUTION = {
    "Name": "conv_in + relu",
    "LayerType": "CaskConvolution",
    "Inputs": [
        {
            "Name": "x codes", "Location": "Device", "Dimensions": [1, 32, 17, 17],
            "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format",
        }
    ],
    "Outputs": [
        {
            "Name": "y", "Location": "Device", "Dimensions": [1, 64, 17, 17],
            "Format/Datatype": "Channel major FP16 format where channel % 8 == 0",
        }
    ],
    "ParameterType": "Convolution", "Kernel": [3, 3], "OutMaps": 64,
    "Weights": {"Type": "Int8", "Count": 18432}, "Bias": {"Type": "Float", "Count": 64},
    "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8",
    "Metadata": "[ONNX Layer: conv_in]\x1e[ONNX Layer: q [0]]",
}  # fmt: skip


def report(*found: Layer) -> LayerReport:
    return LayerReport(
        builder="tensorrt", version="11.4", capability="sm_90", engine_bytes=1, weights_bytes=1,
        scratch_bytes=0, seconds=1.0, layers=found,
    )  # fmt: skip


def product(kind: str, data: str, weight: str | None, *nodes: str, name: str = "l") -> Layer:
    return Layer(
        name=name,
        kind=kind,
        inputs=(TensorUse(name="x", dims=(-1, 64), dtype=data),),
        constants=() if weight is None else (TensorUse(name="w", dims=(64, 48), dtype=weight),),
        outputs=(),
        tactic="",
        onnx_nodes=nodes,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_both_forms_say_the_same(version: str) -> None:
    found = parse_inspection(layers("site0", "Int8", version))
    (layer,) = found.layers
    assert layer.inputs == (TensorUse(name="codes", dims=(-1, 64), dtype="int8"),)
    assert layer.outputs[0].dtype == "float16"
    assert layer.onnx_nodes == ("site0", "bias")
    assert found.tensors == ("x", "y")


def test_tensors_of_11_may_be_objects() -> None:
    text = json.dumps({"Layers": [], "I/O Tensors": [{"Name": "x", "DataType": "Half"}]})
    assert parse_inspection(text).tensors == ("x",)


def test_a_layer_with_parameters_of_its_own() -> None:
    (layer,) = parse_inspection(json.dumps({"Layers": [CONVOLUTION], "Bindings": []})).layers
    assert layer.constants == (TensorUse(name="Weights", dims=(64, 288), dtype="int8"),)
    assert layer.onnx_nodes == ("conv_in", "q [0]")
    assert product_kind(layer) == "correlation"
    proof = prove_sites(report(layer), {"conv_in": ("conv_in",)})["conv_in"]
    assert (proof.integer, proof.precision, proof.kernel) == (
        True,
        "int8",
        "correlation int8 x int8",
    )


@pytest.mark.parametrize(
    ("description", "dtype"),
    [
        ("Row major linear FP32", "float32"), ("Row major linear BF16 format", "bfloat16"),
        ("Two wide channel vectorized row major FP16 format", "float16"), ("Half", "float16"),
        ("Float", "float32"), ("FP8", "float8_e4m3fn"), ("Row major Int8 format", "int8"),
        ("UInt8", "uint8"), ("Int64", "int64"), ("Int4", "int4"), ("FP4", "float4_e2m1fn"),
        ("Bool", "bool"), ("BFloat16", "bfloat16"), ("E8M0", "float8_e8m0fnu"),
        ("something new", "something new"), ("", ""),
    ],
)  # fmt: skip
def test_types(description: str, dtype: str) -> None:
    assert data_type(description) == dtype


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        ("gemm", "gemm"), ("CaskConvolution", "correlation"), ("CaskGemmMatrixMultiply", "gemm"),
        ("MatrixMultiply", "gemm"), ("conv", "correlation"), ("kgen", "kgen"),
        ("Reformat", "Reformat"),
        ("CaskGemmConvolution", "correlation"), ("PointWiseV2", "PointWiseV2"),
    ],
)  # fmt: skip
def test_kinds(kind: str, plain: str) -> None:
    assert product_kind(product(kind, "int8", "int8")) == plain


SITES = {"a": ("a",), "b": ("b0", "b1"), "c": ("c",)}


def test_proofs() -> None:
    proofs = prove_sites(
        report(
            product("CaskGemmMatrixMultiply", "int8", "int8", "a", "bias"),
            product("gemm", "float8_e4m3fn", None, "b0", name="first"),
            product("gemm", "float8_e4m3fn", "float8_e4m3fn", "b1", name="second"),
            product("gemm", "float16", "float16", "c"),
        ),
        SITES,
    )
    assert {site: proof.precision for site, proof in proofs.items()} == {
        "a": "int8", "b": "fp8", "c": None,
    }  # fmt: skip
    assert proofs["b"].products == ("first", "second")
    assert check_sites(proofs, allow_fallback=True) == ("c: gemm float16 x float16",)
    with pytest.raises(SegQuantError, match=r"1 of 3 planned sites .*\n.*c: gemm float16"):
        check_sites(proofs, allow_fallback=False)


def test_one_of_two_products_in_float_is_a_fallback() -> None:
    proofs = prove_sites(
        report(product("gemm", "int8", "int8", "b0"), product("gemm", "float16", "float16", "b1")),
        {"b": ("b0", "b1")},
    )
    assert not proofs["b"].integer


def test_decoded_weights_are_a_fallback() -> None:
    """Codes that a float product decodes first are what users take for an INT8 engine."""
    proofs = prove_sites(report(product("gemm", "float16", "int8", "a")), {"a": ("a",)})
    assert not proofs["a"].integer


def test_a_site_that_no_layer_names_is_a_fallback() -> None:
    proofs = prove_sites(report(), {"a": ("a",)})
    with pytest.raises(SegQuantError, match="a: absent"):
        check_sites(proofs, allow_fallback=False)


def test_long_lists_are_cut() -> None:
    proofs = prove_sites(report(), {f"s{index}": ("x",) for index in range(25)})
    with pytest.raises(SegQuantError, match="and 15 more"):
        check_sites(proofs, allow_fallback=False)


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("Layers: none", "is none"),
    "a list": ([], "no list 'Layers'"),
    "no layers": ({"Bindings": []}, "no list 'Layers'"),
    "names only": ({"Layers": ["conv_in", "gemm"]}, "have names only"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_is_no_inspection(fault: str) -> None:
    found, told = BAD[fault]
    with pytest.raises(SegQuantError, match=told):
        parse_inspection(found if isinstance(found, str) else json.dumps(found))


def test_an_inspector_that_is_silent() -> None:
    module, script = fake_tensorrt(VERSIONS[-1])
    engine = script.answers["world"].new("ICudaEngine")
    with pytest.raises(SegQuantError, match="says nothing"):
        inspect_engine(module, engine)
