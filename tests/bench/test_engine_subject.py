"""An engine is timed on tensors that lie on its device; engine, device and events are stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from segquant_trt.bench.cases import Interface, Sweep, cases_of
from segquant_trt.bench.engine_subject import EngineSubject, engine_interface
from segquant_trt.errors import SegQuantError
from segquant_trt.records import TensorSpec
from segquant_trt.records.engine import ShapeProfile, ShapeRange
from tests.bench.test_torch_module import Stream


@dataclass
class Session:
    """Adds up its inputs in the engine's type; three milliseconds each time."""

    stream: Stream
    inputs: tuple[TensorSpec, ...] = (
        TensorSpec(name="x", dtype="bfloat16", shape=("x.0", 3)),
        TensorSpec(name="class", dtype="int64", shape=("class.0",)),
    )
    given: list[Mapping[str, Any]] = field(default_factory=list)

    def run_tensors(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.given.append(inputs)
        self.stream.now_ms += 3.0
        return {"y": inputs["x"] * 2, "other": inputs["class"]}


def subject() -> tuple[EngineSubject, Session]:
    stream = Stream()
    session = Session(stream)
    return EngineSubject(name="engine", session=session, device="cpu", cuda=stream), session


INPUTS = {"x": np.full((2, 3), 0.1, np.float32), "class": np.array([1, 2], np.int32)}


def test_inputs_are_placed_once_and_calls_are_timed_by_events() -> None:
    import torch

    found, session = subject()
    timed = found.bind(INPUTS)
    assert [timed.run(), timed.run()] == [3.0, 3.0]
    first, second = session.given
    assert first is second
    assert {name: tensor.dtype for name, tensor in first.items()} == {
        "x": torch.bfloat16,
        "class": torch.int64,
    }
    answer = timed.answer()
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, np.full((2, 3), 0.2), rtol=2.0**-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": None}, "engine takes an input 'class'; given are x"),
        ({"class": np.ones(2, np.float32)}, "input 'class' is float32; engine takes int64"),
    ],
)
def test_inputs_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    found, _ = subject()
    given = {name: array for name, array in {**INPUTS, **change}.items() if array is not None}
    with pytest.raises(SegQuantError, match=message):
        found.bind(given)


def ranged(name: str, *lengths: tuple[int, int, int]) -> ShapeRange:
    low, usual, high = zip(*lengths, strict=True)
    return ShapeRange(name=name, minimum=low, optimum=usual, maximum=high)


def test_a_profile_says_which_lengths_an_engine_takes() -> None:
    batch, tokens = (1, 2, 4), (16, 1024, 4096)
    inputs = (
        TensorSpec(name="x", dtype="float16", shape=("x.0", "x.1", 64)),
        TensorSpec(name="t", dtype="float16", shape=("t.0",)),
        TensorSpec(name="ids", dtype="float16", shape=("ids.0", 3)),
    )
    profile = ShapeProfile(
        inputs=(
            ranged("x", batch, tokens, (64, 64, 64)),
            ranged("t", batch),
            ranged("ids", tokens, (3, 3, 3)),
        )
    )
    found = engine_interface(inputs, profile)
    assert [spec.shape for spec in found.inputs] == [
        ("batch", "x.1", 64),
        ("batch",),
        ("ids.0", 3),
    ]
    assert cases_of(found, Sweep(axes={"batch": (1,)})) == [
        {"batch": 1, "x.1": 1024, "ids.0": 1024}
    ]
    assert engine_interface(inputs, None) == Interface(inputs=inputs)
