"""Write the golden graphs: `python -m tests.golden.export [NAME ...]`.

Each is traced in a process of its own (a failed trace poisons later ones), stripped of weights,
stack traces and paths, and packed. Names and scopes of nodes stay.
"""

from __future__ import annotations

import argparse
import logging
import lzma
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from tests.golden.catalogue import GRAPHS, packed_path

OUTPUT = "out_sample"
EXPORTERS = ("torch", "onnx", "onnx-ir", "onnxscript", "diffusers")
SCOPES = "pkg.torch.onnx.name_scopes"
WEIGHTS = "weights.bin"
# Scales of a Resize, a GELU's coefficients and the like are read by whoever reads a graph.
KEPT_ELEMENTS = 16


def main() -> None:
    """Export the graphs that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*GRAPHS, []], metavar="NAME")
    for name in parser.parse_args().names or GRAPHS:
        export_in_child(name, packed_path(name))
        print(f"{name}: {packed_path(name).stat().st_size} bytes")


def export_in_child(name: str, path: Path) -> None:
    """Export the graph `name` to `path` (.onnx.xz) in a new process."""
    code = "import sys; from tests.golden.export import export; export(*sys.argv[1:])"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(path)], cwd=root, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"export of {name} failed:\n{done.stdout}\n{done.stderr}")


def export(name: str, path: str) -> None:
    """Export the graph `name` to `path`, in this process."""
    from tests.golden.families import FAMILIES

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    family, form = GRAPHS[name]
    example = FAMILIES[family]()
    match form:
        case "optimized":
            model = _dynamo(example, opset=21, optimize=True)
        case "plain":
            model = _dynamo(example, opset=21, optimize=False)
        case "opset18":
            model = _dynamo(example, opset=18, optimize=True)
        case "opset23":
            model = _dynamo(example, opset=23, optimize=True)
        case "legacy":
            model = _legacy(example)
    strip(model)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(lzma.compress(model.SerializeToString(deterministic=True), preset=9))


def strip(model: onnx.ModelProto) -> None:
    """Remove weights and what names a machine; leave each weight's name, type and shape."""
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:], model.graph.metadata_props[:]
    onnx.helper.set_model_props(model, {package: version(package) for package in EXPORTERS})
    for node in _nodes(model.graph):
        node.doc_string = ""
        kept = [entry for entry in node.metadata_props if entry.key == SCOPES]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    offset = 0
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
        offset += _point_outside(tensor, offset)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
        value.doc_string = ""


def _point_outside(tensor: onnx.TensorProto, offset: int) -> int:
    """Replace a weight's values by a place in a file that does not exist; return its bytes."""
    values = onnx.numpy_helper.to_array(tensor)
    if values.dtype.kind != "f" or values.size <= KEPT_ELEMENTS:
        return 0
    shell = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    shell.data_location = onnx.TensorProto.EXTERNAL
    for key, entry in (("location", WEIGHTS), ("offset", offset), ("length", values.nbytes)):
        shell.external_data.add(key=key, value=str(entry))
    tensor.CopyFrom(shell)
    return values.nbytes


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _dynamo(example: Any, *, opset: int, optimize: bool) -> onnx.ModelProto:
    import torch

    flat = dict(_flat(example.inputs))
    # Every input's batch is a symbol of its own until somebody says that they are one.
    example.module.register_forward_pre_hook(_one_batch(example.axes), with_kwargs=True)
    constants = example.constants | {"return_dict": False}
    program = torch.onnx.export(
        example.module,
        kwargs=example.inputs | constants,
        dynamo=True,
        optimize=optimize,
        opset_version=opset,
        verbose=False,
        input_names=list(flat),
        output_names=[OUTPUT],
        dynamic_shapes=_dynamic(example.inputs, example.axes)
        | {
            name: torch.utils._pytree.tree_map(lambda _: None, constants[name])
            for name in constants
        },
        custom_translation_table={torch.ops.aten.squeeze.dim: _squeeze},
    )
    assert program is not None
    return program.model_proto


def _legacy(example: Any) -> onnx.ModelProto:
    import io

    import torch

    torch.onnx.register_custom_op_symbolic("aten::rms_norm", _rms_norm, 17)
    stream = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(
            example.module,
            (),
            stream,
            kwargs=example.inputs | example.constants | {"return_dict": False},
            dynamo=False,
            opset_version=17,
            input_names=[name for name, _ in _flat(example.inputs)],
            output_names=[OUTPUT],
            dynamic_axes=example.axes,
        )
    return onnx.load_from_string(stream.getvalue())


def _one_batch(axes: dict[str, dict[int, str]]) -> Any:
    def check(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        import torch

        tensors = {name: value for name, value in _flat(kwargs) if name in axes}
        sizes = [value.shape[0] for name, value in tensors.items() if axes[name].get(0) == "batch"]
        for size in sizes[1:]:
            torch._check(size == sizes[0])

    return check


def _flat(inputs: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors of nested arguments under flat dotted names."""
    import torch

    named = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    for key, value in named:
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, dict | tuple):
            yield from _flat(value, f"{prefix}{key}.")


def _dynamic(inputs: Any, axes: dict[str, dict[int, str]], name: str = "") -> Any:
    import torch

    inner = f"{name}." if name else ""
    if isinstance(inputs, dict):
        return {key: _dynamic(value, axes, f"{inner}{key}") for key, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_dynamic(value, axes, f"{inner}{i}") for i, value in enumerate(inputs))
    return dict.fromkeys(axes[name], torch.export.Dim.DYNAMIC)


def _squeeze(source: Any, dim: int) -> Any:
    """PixArt squeezes its token axis, which torch ignores and ONNX refuses."""
    import onnxscript

    op: Any = onnxscript.opset18
    if source.shape is not None and source.shape[dim] == 1:
        return op.Squeeze(source, op.Constant(value_ints=[dim]))
    return op.Identity(source)


def _rms_norm(g: Any, source: Any, shape: Any, weight: Any, eps: Any) -> Any:
    """What the legacy exporter lacks: x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    import torch

    power = g.op("Constant", value_t=torch.tensor(2.0))
    mean = g.op("ReduceMean", g.op("Pow", source, power), axes_i=[-1], keepdims_i=1)
    normal = g.op("Div", source, g.op("Sqrt", g.op("Add", mean, eps)))
    return g.op("Mul", normal, weight)


if __name__ == "__main__":
    main()
