"""Exports of tiny denoisers: equal to torch, by reference, and the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from safetensors.numpy import load_file

from segquant_trt.errors import SegQuantError
from segquant_trt.export import export, materialize
from segquant_trt.graph.bigfile import Weights, external_range, load_graph
from segquant_trt.models import family_for
from segquant_trt.models.source import resolve
from segquant_trt.records import CheckpointLocation, ModelSpec
from segquant_trt.records.codec import read_record
from tests.shared import LazyFolders
from tests.tiny_pipelines import TINY_KINDS, TinyKind, make_tiny_denoiser

# Neither the traced lengths nor the exporter's own checks.
LENGTHS = {"batch": 5, "height": 10, "width": 14, "tokens": 21, "text": 13}


def _spec(run: Path) -> ModelSpec:
    return read_record(run / "model.yaml", ModelSpec)


def _weights_folder(run: Path) -> Path:
    return Path(read_record(run / "model.location.yaml", CheckpointLocation).folder)


def _example(spec: ModelSpec) -> dict[str, Any]:
    family = family_for(spec.class_name)
    return family.example_inputs(spec.config, LENGTHS, seed=11)


def _by_onnxruntime(run: Path, inputs: dict[str, Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(_weights_folder(run))
    )
    session = onnxruntime.InferenceSession((run / "model.onnx").read_bytes(), options)
    assert [value.name for value in session.get_outputs()] == ["out_sample"]
    return session.run(None, inputs)[0]


def _by_diffusers(model: Path, spec: ModelSpec, inputs: dict[str, Any]) -> Any:
    family = family_for(spec.class_name)
    module = family.module_class().from_pretrained(model, torch_dtype=torch.float32).eval()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        return module(**family.nest(tensors), return_dict=False)[0].numpy()


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_the_graph_computes_what_diffusers_computes(
    kind: TinyKind, exported_tiny: LazyFolders, tiny_denoisers: LazyFolders
) -> None:
    run = exported_tiny[kind]
    spec = _spec(run)
    inputs = _example(spec)
    expected = _by_diffusers(tiny_denoisers[kind], spec, inputs)
    found = _by_onnxruntime(run, inputs)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert spec.validation is not None
    assert spec.validation.subject == "model"
    assert spec.validation.max_relative_error < 1e-5


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_every_weight_is_a_range_of_the_checkpoint(
    kind: TinyKind, exported_tiny: LazyFolders, tiny_denoisers: LazyFolders
) -> None:
    run = exported_tiny[kind]
    graph = load_graph(run / "model.onnx")
    (file,) = tiny_denoisers[kind].glob("*.safetensors")
    stored = load_file(file)
    weights = Weights(graph, file.parent)
    external = {t.name for t in graph.graph.initializer if external_range(t) is not None}
    assert external == set(stored)
    for name, array in stored.items():
        assert weights.dtype(name) == array.dtype == np.float16
        np.testing.assert_array_equal(weights.read(name), array)
    inline = [t for t in graph.graph.initializer if t.name not in external]
    assert all(t.name.startswith("constant_") for t in inline)
    assert max(int(np.prod(t.dims)) for t in inline) <= 128


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_the_file_says_what_the_spec_says(kind: TinyKind, exported_tiny: LazyFolders) -> None:
    spec, graph = _spec(exported_tiny[kind]), load_graph(exported_tiny[kind] / "model.onnx").graph
    for specs, values in ((spec.inputs, graph.input), ((spec.output,), graph.output)):
        assert [s.name for s in specs] == [v.name for v in values]
        for tensor, value in zip(specs, values, strict=True):
            kind_of = value.type.tensor_type
            assert onnx.helper.tensor_dtype_to_np_dtype(kind_of.elem_type).name == tensor.dtype
            shape = tuple(dim.dim_param or dim.dim_value for dim in kind_of.shape.dim)
            assert shape == tensor.shape
    assert {axis.name for axis in spec.axes} == {
        axis for tensor in spec.inputs for axis in tensor.shape if isinstance(axis, str)
    }


@pytest.mark.parametrize("kind", TINY_KINDS)
def test_nodes_are_named_after_modules_and_tell_nothing_else(
    kind: TinyKind, exported_tiny: LazyFolders, tiny_linears: Any
) -> None:
    run = exported_tiny[kind]
    graph = load_graph(run / "model.onnx")
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    scopes = {name.rpartition("/")[0] for name in names}
    assert set(tiny_linears[kind]) <= scopes
    data = (run / "model.onnx").read_bytes()
    for secret in (b"site-packages", b"/tmp", b".py", str(run).encode()):
        assert secret not in data
    for node in graph.graph.node:
        assert {p.key for p in node.metadata_props} <= {"pkg.torch.onnx.name_scopes"}
        assert node.op_type not in ("Identity", "Constant", "CastLike", "SequenceAt", "Dropout")


def test_group_normalization_is_one_node(exported_tiny: LazyFolders) -> None:
    nodes = load_graph(exported_tiny["sd15"] / "model.onnx").graph.node
    assert sum(node.op_type == "GroupNormalization" for node in nodes) == 21


@pytest.mark.parametrize("kind", ["sd3"])
def test_a_second_process_writes_the_same_bytes(
    kind: TinyKind,
    exported_tiny: LazyFolders,
    tiny_denoisers: LazyFolders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "4242")
    fractions: list[float] = []
    source = resolve(str(tiny_denoisers[kind]))
    export(source, tmp_path, on_progress=lambda fraction, text: fractions.append(fraction))
    for name in ("model.onnx", "model.yaml", "model.location.yaml"):
        assert (tmp_path / name).read_bytes() == (exported_tiny[kind] / name).read_bytes()
    assert fractions == sorted(fractions)
    assert len(fractions) >= 3


def test_materialized_copies_need_nothing_else(exported_tiny: LazyFolders, tmp_path: Path) -> None:
    run = exported_tiny["sd3"]
    path = materialize(run, tmp_path / "copy")
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path))
    inputs = _example(_spec(run))
    np.testing.assert_array_equal(session.run(None, inputs)[0], _by_onnxruntime(run, inputs))


def test_materialize_without_the_checkpoint(exported_tiny: LazyFolders, tmp_path: Path) -> None:
    run = exported_tiny["sd3"]
    for name in ("model.onnx", "model.yaml", "model.location.yaml"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    location = (tmp_path / "model.location.yaml").read_text()
    folder = str(_weights_folder(run))
    (tmp_path / "model.location.yaml").write_text(location.replace(folder, str(tmp_path)))
    with pytest.raises(SegQuantError, match="gone or shorter"):
        materialize(tmp_path, tmp_path / "copy")


def test_typical_lengths_are_checked(tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    source = resolve(str(tiny_denoisers["sd3"]))
    for typical in ({"height": 3}, {"tokens": 5}, {"batch": 0}):
        with pytest.raises(SegQuantError, match=next(iter(typical))):
            export(source, tmp_path, typical=typical)


@pytest.mark.full
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_stored_types_and_shards(dtype: Any, tmp_path: Path) -> None:
    model = make_tiny_denoiser("sd3", tmp_path / "m", dtype=dtype, max_shard_size="100KB")
    source = resolve(str(model))
    assert len(source.checkpoint) > 1
    spec = export(source, tmp_path / "run", typical={"height": 8})
    assert {axis.name: axis.typical for axis in spec.axes}["height"] == 8
    inputs = _example(spec)
    expected = _by_diffusers(model, spec, inputs)
    found = _by_onnxruntime(tmp_path / "run", inputs)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    wanted = {"float32": TensorProto.FLOAT, "bfloat16": TensorProto.BFLOAT16}[dtype]
    initializers = load_graph(tmp_path / "run" / "model.onnx").graph.initializer
    assert {t.data_type for t in initializers if external_range(t) is not None} == {wanted}
