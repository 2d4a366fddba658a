"""torch's own module as a subject: on this CPU for real, on a GPU with stand-ins for its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from segquant_trt.bench.baselines.events import CudaEvents
from segquant_trt.bench.baselines.torch_module import TorchTimed, cuda_bus_id, torch_subject
from segquant_trt.errors import SegQuantError
from segquant_trt.models import family_for

FAMILY = family_for("FluxTransformer2DModel")
CONFIG = FAMILY.cut(FAMILY.complete({})) | {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "axes_dims_rope": [2, 2, 4],
    "joint_attention_dim": 12,
    "pooled_projection_dim": 10,
    "in_channels": 4,
}
LENGTHS = {"batch": 2, "tokens": 6, "text": 3}


def made(dtype: Any = "float32") -> tuple[Any, Any]:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = FAMILY.build(CONFIG)
    specs = FAMILY.inputs(CONFIG)
    subject = torch_subject(
        "torch", module, FAMILY, specs, device="cpu", dtype=dtype, compiled=False
    )
    return subject, module


def test_the_module_answers_what_it_answers_outside() -> None:
    import torch

    subject, module = made()
    inputs = FAMILY.example_inputs(CONFIG, LENGTHS)
    timed = subject.bind(inputs)
    assert timed.run() is None
    with torch.no_grad():
        wanted = module(**{name: torch.from_numpy(x) for name, x in inputs.items()}).sample
    np.testing.assert_array_equal(timed.answer(), wanted.numpy())
    assert subject.pci_bus_id is None


def test_other_float_types_take_the_same_inputs() -> None:
    exact, _ = made()
    rounded, _ = made("bfloat16")
    inputs = FAMILY.example_inputs(CONFIG, LENGTHS)
    answers = []
    for subject in (exact, rounded):
        timed = subject.bind(inputs)
        timed.run()
        answers.append(timed.answer())
    assert answers[1].dtype == np.float32
    assert 0.0 < np.abs(answers[0] - answers[1]).max() < 0.2


def test_a_lacking_input_is_named() -> None:
    subject, _ = made()
    inputs = FAMILY.example_inputs(CONFIG, LENGTHS)
    del inputs["img_ids"]
    with pytest.raises(SegQuantError, match="torch takes an input 'img_ids'; given are"):
        subject.bind(inputs)


def test_a_compiler_that_fails_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def compile_to_nothing(module: Any, *, dynamic: bool) -> Any:
        assert dynamic is False

        def call(**_: Any) -> None:
            raise RuntimeError("\n\nno compiler found\nmore lines")

        return call

    monkeypatch.setattr(torch, "compile", compile_to_nothing)
    subject = torch_subject(
        "fast",
        FAMILY.build(CONFIG),
        FAMILY,
        FAMILY.inputs(CONFIG),
        device="cpu",
        dtype="float32",
        compiled=True,
    )
    with pytest.raises(SegQuantError, match=r"fails on fast: RuntimeError: no compiler found\n"):
        subject.bind(FAMILY.example_inputs(CONFIG, LENGTHS))


@dataclass
class Stream:
    """A GPU's stream on which time passes when work is put there, and not before."""

    now_ms: float = 100.0
    log: list[str] = field(default_factory=list)

    def Event(self, *, enable_timing: bool) -> Event:
        assert enable_timing
        return Event(self)


@dataclass
class Event:
    stream: Stream
    at_ms: float | None = None
    reached: bool = False

    def record(self) -> None:
        self.stream.log.append("record")
        self.at_ms, self.reached = self.stream.now_ms, False

    def synchronize(self) -> None:
        self.stream.log.append("synchronize")
        self.reached = True

    def elapsed_time(self, end: Event) -> float:
        assert end.reached, "read before the device came there"
        assert self.at_ms is not None
        assert end.at_ms is not None
        return end.at_ms - self.at_ms


def test_a_call_on_a_gpu_is_timed_between_its_events() -> None:
    stream = Stream()

    def call(**arguments: Any) -> tuple[Any]:
        stream.log.append("call")
        stream.now_ms += 7.25
        return (arguments["x"],)

    timed = TorchTimed(name="m", call=call, arguments={"x": 3}, events=CudaEvents(stream))
    assert [timed.run(), timed.run()] == [7.25, 7.25]
    assert stream.log == ["record", "call", "record", "synchronize"] * 2


def test_a_gpu_is_named_by_its_address() -> None:
    found = SimpleNamespace(pci_domain_id=0, pci_bus_id=0x1B, pci_device_id=0)
    cuda = SimpleNamespace(
        is_available=lambda: True,
        current_device=lambda: 0,
        get_device_properties=lambda index: found,
    )
    assert cuda_bus_id(cuda, "torch") == "00000000:1b:00.0"


def test_without_a_gpu_the_module_is_not_even_moved() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    module = FAMILY.build(CONFIG)
    with pytest.raises(SegQuantError, match="runs on an NVIDIA GPU, and torch sees none here"):
        torch_subject(
            "m",
            module,
            FAMILY,
            FAMILY.inputs(CONFIG),
            device="cuda",
            dtype="bfloat16",
            compiled=False,
        )
    assert next(module.parameters()).dtype == torch.float32
