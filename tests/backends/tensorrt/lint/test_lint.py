"""The function `lint`: verdicts per site, large files, local functions, versions of types."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from segquant_trt.backends.tensorrt.lint import lint
from segquant_trt.errors import SegQuantError
from tests.backends.tensorrt.lint.bases import BASES
from tests.backends.tensorrt.lint.parts import linear, op
from tests.backends.tensorrt.lint.sketch import FLOAT, FLOAT16, Sketch

GOLDEN = Path(__file__).parents[3] / "golden" / "graphs"


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_each_site_has_a_verdict_with_its_reason(tmp_path: Path) -> None:
    s = Sketch()
    x = s.input("x", "batch", 8, 32)
    good = s.op("MatMul", s.pair(x), s.weight(32, 32, axis=1), name="good")
    s.op("MatMul", s.pair(x, 0.02), s.weight(32, 32, axis=1), name="unread")
    bad = s.op("MatMul", s.pair(good), s.floats(np.ones((32, 32))), name="bad")
    s.output(s.op("MatMul", bad, s.floats(np.ones((32, 32))), name="float"))
    report = lint(save(s.model(), tmp_path), target="tensorrt-rtx")
    assert [(site.site, site.eight_bit, site.precision) for site in report.sites] == [
        ("good", True, "int8"),
        ("bad", False, "int8"),
    ]
    assert "its weight" in report.sites[1].reasons[0]
    assert report.outcome == "not-8-bit"


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_what_plans_lead_to_meets_no_error(base: str, target: str, tmp_path: Path) -> None:
    report = lint(save(BASES[base](3), tmp_path), target=target)  # type: ignore[arg-type]
    assert report.errors == ()
    assert all(site.eight_bit for site in report.sites)
    assert {site.site for site in report.sites} == {
        node.name
        for node in BASES[base](3).graph.node
        if node.name.startswith("site") and base != "fp16 attention"
    }


def test_weights_are_not_read(tmp_path: Path) -> None:
    """Codes of 8 GiB in a sparse file; scales and zero points lie in it, too."""
    s = Sketch()
    x = s.input("x", "batch", 8, 65536)
    s.output(s.op("MatMul", s.pair(x), s.weight(16, 16, axis=1), name="site"))
    model = s.model()
    size, at = 2**33, 0
    with (tmp_path / "weights.bin").open("wb") as stream:
        stream.truncate(size + 2**20)
        for tensor in model.graph.initializer:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            array = onnx.numpy_helper.to_array(_inline(tensor))
            large = array.ndim == 2
            if large:
                tensor.dims[:] = [65536, 131072]
            elif array.size > 1:
                array = np.full(131072, 0.01 if array.dtype == np.float16 else 0, array.dtype)
                tensor.dims[:] = array.shape
            length = size if large else array.nbytes
            if not large:
                stream.seek(at)
                stream.write(array.tobytes())
            entries = {"location": "weights.bin", "offset": at, "length": length}
            for field in ("raw_data", "int32_data"):
                tensor.ClearField(field)
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            at += 0 if large else length
    report = lint(save(model, tmp_path), target="tensorrt-rtx")
    assert report.findings == ()
    assert report.outcome == "fine"
    (tmp_path / "weights.bin").write_bytes(b"")
    short = lint(save(model, tmp_path), target="tensorrt-rtx")
    assert {finding.rule for finding in short.errors} == {"external-data"}


def _inline(tensor: onnx.TensorProto) -> onnx.TensorProto:
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.ClearField("data_location")
    return copy


def test_products_within_local_functions_are_judged(tmp_path: Path) -> None:
    s = Sketch()
    x = s.input("x", "batch", 8, 32)
    s.output(s.op("Linear", s.pair(x), s.weight(32, 32, axis=0), name="call"))
    s.nodes[-1].domain = "own"
    model = s.model()
    model.opset_import.append(helper.make_opsetid("own", 1))
    body = [helper.make_node("MatMul", ["X", "W"], ["Y"], name="product")]
    imports = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("own", "Linear", ["X", "W"], ["Y"], body, imports))
    report = lint(save(model, tmp_path), target="tensorrt-rtx")
    assert [site.eight_bit for site in report.sites] == [False]
    assert "product" in report.sites[0].site
    assert {"weight-axis", "function-inlined"} == {f.rule for f in report.findings}


def test_types_follow_the_file_not_onnx_inference(tmp_path: Path) -> None:
    """ONNX's inference stops at the first mixture; the second is found as well."""
    wide = np.array([2.0], dtype=np.float32)
    model = linear(after=lambda s, x: op("Mul", wide)(s, op("Cast", to=FLOAT16)(s, x)))
    first = lint(save(model, tmp_path))
    assert [f.node for f in first.findings if f.rule == "mixed-types"]
    fixed = linear(after=lambda s, x: op("Mul", wide)(s, op("Cast", to=FLOAT)(s, x)))
    assert [f for f in lint(save(fixed, tmp_path)).findings if f.rule == "mixed-types"] == []


@pytest.mark.parametrize("name", ["flux.optimized", "sd15.legacy", "sdxl.plain", "sd3.opset23"])
def test_exported_models_meet_only_rules_that_hold(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(lzma.decompress((GOLDEN / f"{name}.onnx.xz").read_bytes()))
    report = lint(path, target="tensorrt-rtx")
    known = {"external-data", "fp32-product", "fp32-attention", "fp64"}
    extra = {
        "sdxl.plain": {"unsupported-operator"},
        "sd3.opset23": {"attention-operator-fp32"},
    }
    assert {finding.rule for finding in report.findings} <= known | extra.get(name, set())
    assert extra.get(name, set()) <= {finding.rule for finding in report.findings}
    assert report.sites == ()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"target": "openvino"}, "tensorrt-rtx"),
        ({"capability": "sm_42"}, "sm_75"),
        ({"tensorrt_version": "eleven"}, "11.4"),
    ],
)
def test_what_does_not_exist_is_refused(
    arguments: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(SegQuantError, match=told):
        lint(save(linear(), tmp_path), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("version", "told"), [(None, True), ("10.13", False), ("11.4", True)])
def test_some_rules_are_of_a_version(version: str | None, told: bool, tmp_path: Path) -> None:
    s = Sketch(FLOAT)
    s.output(s.op("MatMul", s.input("x", "batch", 32), s.floats(np.ones((32, 32))), name="site"))
    report = lint(save(s.model(), tmp_path), tensorrt_version=version)
    assert ("fp32-file" in {finding.rule for finding in report.findings}) == told


@pytest.mark.parametrize("text", ["sm_89", "SM89", "89", "8.9"])
def test_a_gpu_has_several_spellings(text: str, tmp_path: Path) -> None:
    assert lint(save(linear(), tmp_path), capability=text).capability == "sm_89"
