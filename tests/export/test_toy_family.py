"""Parts of the exporter on a module made to be awkward: shared weights, buffers, mixed types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.export.bind import bind
from segquant_trt.export.fake_model import fake_module
from segquant_trt.export.fold import fold, hide_weights
from segquant_trt.export.job import serialized
from segquant_trt.export.naming import finish
from segquant_trt.export.trace import trace
from segquant_trt.graph.bigfile import external_range
from segquant_trt.models.checkpoint import read_tensors
from segquant_trt.models.family import BATCH, Config, Family
from segquant_trt.models.torch_module import load_module, match
from segquant_trt.records import AxisRange, TensorSpec

WIDTH = 6


class Awkward(torch.nn.Module):
    """Two layers that share a weight; a stored buffer, one that is not, and a plain tensor."""

    stored: torch.Tensor
    computed: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(WIDTH, WIDTH)
        self.second = torch.nn.Linear(WIDTH, WIDTH)
        self.second.weight = self.first.weight
        self.register_buffer("stored", torch.zeros(WIDTH))
        self.register_buffer("computed", torch.arange(WIDTH) ** 0.5, persistent=False)
        self.plain = torch.linspace(0.0, 1.0, WIDTH)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Awkward:
        return cls()

    def forward(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, return_dict: bool = True
    ) -> tuple[torch.Tensor]:
        x = torch.sin(self.first(hidden_states[:, :, :]) * timestep[:, None, None]) + self.plain
        x = self.second(x + self.stored) * self.computed.to(torch.float64)
        rows = torch.outer(timestep, torch.arange(WIDTH, dtype=torch.float64))
        return ((x + rows[:, None]).to(torch.float32),)


class AwkwardFamily(Family):
    name: ClassVar[str] = "awkward"
    class_name = "Awkward"
    module = __name__
    component = "transformer"

    def sizes(self, config: Config) -> tuple[AxisRange, ...]:
        return (BATCH, AxisRange(name="tokens", minimum=1, typical=4, maximum=64))

    def inputs(self, config: Config) -> tuple[TensorSpec, ...]:
        return (
            TensorSpec(name="hidden_states", dtype="float32", shape=("batch", "tokens", WIDTH)),
            TensorSpec(name="timestep", dtype="float32", shape=("batch",)),
        )

    def output(self, config: Config) -> TensorSpec:
        return TensorSpec(name="out_sample", dtype="float32", shape=("batch", "tokens", WIDTH))

    def prompt_inputs(self, config: Config) -> tuple[str, ...]:
        return ()

    def cut(self, config: Config) -> dict[str, Any]:
        return dict(config)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Mixed types; the shared weight under one name alone; the last buffer not at all."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "second.weight": torch.randn(WIDTH, WIDTH, generator=generator).to(torch.bfloat16),
        "first.bias": torch.randn(WIDTH, generator=generator).to(torch.float16),
        "second.bias": torch.randn(WIDTH, generator=generator),
        "stored": torch.randn(WIDTH, generator=generator).to(torch.float64),
    }
    path = tmp_path / "weights.safetensors"
    save_file(tensors, path)
    return path


def test_awkward_modules_export_exactly(checkpoint: Path) -> None:
    family = AwkwardFamily()
    module, mode = fake_module(family, {})
    matched = match(module, read_tensors((checkpoint,)))
    assert matched["first.weight"] is matched["second.weight"]
    model = trace(module, mode, family, {})
    weights = hide_weights(model)
    fold(model)
    bind(model, weights, matched)
    finish(model, weights, family.inputs({}), family.output({}))
    data = serialized(model)

    inputs = family.example_inputs({}, {"batch": 1, "tokens": 9})
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(checkpoint.parent)
    )
    (found,) = onnxruntime.InferenceSession(data, options).run(None, inputs)
    reference = load_module((checkpoint,), family, {})
    tensors = [torch.from_numpy(inputs[name]) for name in ("hidden_states", "timestep")]
    with torch.no_grad():
        expected = reference(*tensors)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_no_value_of_a_weight_is_in_the_graph(checkpoint: Path) -> None:
    import onnx

    family = AwkwardFamily()
    module, mode = fake_module(family, {})
    model = trace(module, mode, family, {})
    weights = hide_weights(model)
    fold(model)
    bind(model, weights, match(module, read_tensors((checkpoint,))))
    finish(model, weights, family.inputs({}), family.output({}))
    graph = onnx.load_from_string(serialized(model)).graph
    external = {t.name: t for t in graph.initializer if external_range(t) is not None}
    shared = external.keys() & {"first.weight", "second.weight"}
    assert len(shared) == 1
    assert external.keys() - shared == {"first.bias", "second.bias", "stored"}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in external]
    assert {node.input[0] for node in casts} == {"first.bias", *shared, "stored"}


def test_what_does_not_fit_is_refused(checkpoint: Path) -> None:
    module, _ = fake_module(AwkwardFamily(), {})
    stored = read_tensors((checkpoint,))
    without = {name: tensor for name, tensor in stored.items() if name != "second.weight"}
    with pytest.raises(SegQuantError, match=r"'first\.weight' is not in the checkpoint"):
        match(module, without)
    save_file({"x": torch.zeros(WIDTH, dtype=torch.int8)}, checkpoint)
    integer = read_tensors((checkpoint,))["x"]
    with pytest.raises(SegQuantError, match="stored as I8"):
        match(module, stored | {"first.bias": integer})


def test_a_fake_module_holds_no_memory() -> None:
    module, _ = fake_module(AwkwardFamily(), {})
    fake = {name: type(tensor).__name__ for name, tensor in module.state_dict().items()}
    assert set(fake.values()) == {"FakeTensor"}
    assert module.first.weight is module.second.weight
    assert module.computed.tolist() == pytest.approx([n**0.5 for n in range(WIDTH)])
