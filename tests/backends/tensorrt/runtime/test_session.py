"""Calls of an engine: zero copies, profiles, graphs, threads, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segquant_trt.backends.tensorrt.runtime import EngineSession
from segquant_trt.errors import SegQuantError
from tests.backends.tensorrt.runtime.simulated import OUT, WEIGHT, WIDTH, OnCpu, loaded, tensorrt
from tests.contract.tensorrt.fake import VERSIONS, Script

Make = Callable[..., tuple[EngineSession, Script, OnCpu]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(
        answers: dict[str, Any] | None = None, *, version: str = VERSIONS[-1], **options: Any
    ) -> tuple[EngineSession, Script, OnCpu]:
        accelerator = OnCpu()
        found, script = tensorrt(accelerator, answers, version=version)
        return EngineSession(loaded(tmp_path, found), accelerator, **options), script, accelerator

    return made


def sample(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).standard_normal((rows, WIDTH)).astype(np.float32)
    )


def wanted(x: torch.Tensor) -> np.ndarray:
    return x.numpy() @ WEIGHT


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_are_right_and_inputs_are_read_where_they_lie(make: Make, version: str) -> None:
    session, script, accelerator = make(version=version)
    for rows in (2, 2, 17, 1):
        x = sample(rows, rows)
        y = session.run_tensors({"x": x})["y"]
        np.testing.assert_array_equal(y.numpy(), wanted(x))
        pointed = {each["name"]: each["memory"] for each in script.of(
            "IExecutionContext.set_tensor_address")}  # fmt: skip
        assert pointed["x"] == x.data_ptr()
        assert pointed["y"] == y.data_ptr()
        assert {x.data_ptr(), y.data_ptr()} <= {*accelerator.shared}
    chosen = script.of("IExecutionContext.set_optimization_profile_async")
    assert [each["profile_index"] for each in chosen] == [0, 1, 0]
    assert {each["stream_handle"] for each in chosen} == {1001}
    # Shapes that stay are not set again.
    assert [each["shape"][0] for each in script.of("IExecutionContext.set_input_shape")] == [
        2, 17, 1,
    ]  # fmt: skip


def test_queueing_waits_for_the_callers_stream_and_not_on_the_host(make: Make) -> None:
    session, _, accelerator = make()
    session.run_tensors({"x": sample(2)})
    assert accelerator.events == ["after the caller", "before the caller"]


def test_answers_of_two_calls_do_not_share_memory(make: Make) -> None:
    for graphs in (False, True):
        session, _, _ = make(cuda_graphs=graphs)
        inputs = [sample(3, seed) for seed in range(4)]
        answers = [session.run_tensors({"x": x})["y"] for x in inputs]
        for x, y in zip(inputs, answers, strict=True):
            np.testing.assert_array_equal(y.numpy(), wanted(x))


def test_graphs_are_captured_on_the_second_call_of_a_shape(make: Make) -> None:
    session, script, accelerator = make(cuda_graphs=True)
    for rows in (2, 2, 2, 3, 3, 2, 2):
        x = sample(rows, rows)
        np.testing.assert_array_equal(session.run_tensors({"x": x})["y"].numpy(), wanted(x))
    between = ("after the caller", "before the caller")
    steps = [event for event in accelerator.events if event not in between]
    # A change of shape ends the graph; the call after it runs as it is.
    assert steps == ["capture", "replay", "replay", "capture", "replay", "capture", "replay"]
    inputs = [
        each["memory"]
        for each in script.of("IExecutionContext.set_tensor_address")
        if each["name"] == "x"
    ]
    assert len(inputs) == 3  # one buffer per graph


def test_numpy_in_and_out(make: Make) -> None:
    session, _, _ = make()
    x = np.arange(2 * WIDTH, dtype=np.float32).reshape(2, WIDTH)
    np.testing.assert_array_equal(session.run({"x": x})["y"], x @ WEIGHT)
    assert session.run({"x": x}, []) == {}
    (spec,) = session.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("x", "float32", ("x.0", WIDTH))


def test_whatever_speaks_dlpack_is_taken(make: Make) -> None:
    session, script, _ = make()
    x = np.ones((2, WIDTH), np.float32)
    np.testing.assert_array_equal(session.run_tensors({"x": x})["y"].numpy(), x @ WEIGHT)
    (pointed,) = [
        each["memory"]
        for each in script.of("IExecutionContext.set_tensor_address")
        if each["name"] == "x"
    ]
    assert pointed == x.__array_interface__["data"][0]


def test_a_strided_input_is_read_in_order(make: Make) -> None:
    session, _, _ = make()
    x = sample(2 * WIDTH).reshape(WIDTH, 2 * WIDTH)[:, ::2].T[:4]
    assert not x.is_contiguous()
    np.testing.assert_array_equal(session.run_tensors({"x": x})["y"].numpy(), x.numpy() @ WEIGHT)


def test_many_threads_get_their_own_answers(make: Make) -> None:
    for graphs in (False, True):
        session, script, accelerator = make(contexts=3, cuda_graphs=graphs)

        def call(seed: int, session: EngineSession = session) -> bool:
            x = sample(1 + seed % 17, seed)
            return np.array_equal(session.run_tensors({"x": x})["y"].numpy(), wanted(x))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(call, range(200)))
        made = script.names().count("ICudaEngine.create_execution_context")
        assert 1 <= made <= 3
        assert accelerator.streams == made


def test_a_context_is_used_by_one_thread_at_a_time(make: Make) -> None:
    inside, most, lock = 0, 0, threading.Lock()
    entered = threading.Barrier(2, timeout=20)

    def execute(this: object, stream_handle: int) -> bool:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        entered.wait()  # two calls are inside at once, or this breaks
        with lock:
            inside -= 1
        return True

    session, _, _ = make({"IExecutionContext.execute_async_v3": execute}, contexts=2)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda seed: session.run_tensors({"x": sample(2, seed)}), range(6)))
    assert most == 2


def test_a_context_with_the_shapes_already_set_is_preferred(make: Make) -> None:
    session, script, _ = make(contexts=2)
    with session._lease((("x", (2, WIDTH)),)) as context:
        context.run({"x": sample(2)})
        session.run_tensors({"x": sample(3)})  # the other one
    for rows in (3, 2, 2, 3, 2):
        session.run_tensors({"x": sample(rows)})
    shapes = [each["shape"][0] for each in script.of("IExecutionContext.set_input_shape")]
    assert shapes == [2, 3]


def test_closing(make: Make) -> None:
    session, _, accelerator = make()
    session.run_tensors({"x": sample(2)})
    session.close()
    assert accelerator.events[-1] == "synchronize"
    with pytest.raises(SegQuantError, match="has been closed"):
        session.run_tensors({"x": sample(2)})


def test_a_failed_call_leaves_the_session_usable(make: Make) -> None:
    failing = True
    session, script, _ = make()
    found = script.answers["IExecutionContext.execute_async_v3"]

    def execute(this: object, stream_handle: int) -> bool:
        if failing:
            session._loaded.tensorrt.log.write(1, "an illegal memory access")
            return False
        return bool(found(this, stream_handle=stream_handle))

    script.answers["IExecutionContext.execute_async_v3"] = execute
    with pytest.raises(SegQuantError, match="cannot be executed: an illegal memory access"):
        session.run_tensors({"x": sample(2)})
    failing = False
    x = sample(2)
    np.testing.assert_array_equal(session.run_tensors({"x": x})["y"].numpy(), wanted(x))


BAD_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({}, "input 'x' is missing"),
    "unknown": ({"x": torch.zeros(2, WIDTH), "z": torch.zeros(1)}, "has no input 'z'"),
    "of another type": (
        {"x": torch.zeros(2, WIDTH, dtype=torch.float16)}, "is float16; the engine takes float32",
    ),
    "elsewhere": ({"x": torch.zeros(2, WIDTH, device="meta")}, "is on meta; the engine is on cpu"),
    "too long": (
        {"x": torch.zeros(18, WIDTH)},
        "'x' has shape 18x5; this engine allows 1x5 to 4x5 or 5x5 to 17x5",
    ),
    "of another rank": ({"x": torch.zeros(WIDTH)}, "'x' has shape 5; this engine allows"),
    "empty": ({"x": torch.zeros(0, WIDTH)}, "'x' has shape 0x5"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_CALLS)
def test_bad_inputs_are_one_error(fault: str, make: Make) -> None:
    inputs, told = BAD_CALLS[fault]
    session, script, _ = make()
    with pytest.raises(SegQuantError, match=told) as caught:
        session.run_tensors(inputs)
    assert caught.value.hint
    assert "IExecutionContext.execute_async_v3" not in script.names()


def test_a_bad_call_does_not_cost_the_graph(make: Make) -> None:
    session, _, accelerator = make(cuda_graphs=True)
    for rows in (2, 2, 99, 2):
        if rows == 99:
            with pytest.raises(SegQuantError, match="99x5"):
                session.run_tensors({"x": sample(rows)})
        else:
            session.run_tensors({"x": sample(rows)})
    assert accelerator.events.count("capture") == 1
    assert accelerator.events.count("replay") == 2


def test_inputs_that_want_gradients_get_none(make: Make) -> None:
    session, _, _ = make(cuda_graphs=True)
    x = sample(2).requires_grad_()
    for _ in range(3):
        found = session.run_tensors({"x": x})["y"]
        assert not found.requires_grad
        np.testing.assert_array_equal(found.numpy(), wanted(x.detach()))


def test_unknown_output(make: Make) -> None:
    session, _, _ = make()
    with pytest.raises(SegQuantError, match="has no output 'w'"):
        session.run_tensors({"x": sample(2)}, ["w"])


REFUSALS = {
    "no memory for a context": (
        {"ICudaEngine.create_execution_context": None}, "an execution context, which takes 7 MiB",
    ),
    "profile": (
        {"IExecutionContext.set_optimization_profile_async": False}, "profile 0 cannot be chosen",
    ),
    "shape": ({"IExecutionContext.set_input_shape": False}, "cannot have shape 2x5"),
    "shapes missing": ({"IExecutionContext.infer_shapes": ["x"]}, "shapes are missing for x"),
    "address": ({"IExecutionContext.set_tensor_address": False}, "cannot be read or written at"),
    "output of unknown shape": (
        {"IExecutionContext.get_tensor_shape": (-1, OUT)}, "'y' depends on values",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSALS)
def test_what_tensorrt_refuses_is_one_error(fault: str, make: Make) -> None:
    answers, told = REFUSALS[fault]
    session, _, _ = make(answers)
    with pytest.raises(SegQuantError, match=told):
        session.run_tensors({"x": sample(2)})


def test_no_contexts(make: Make) -> None:
    with pytest.raises(SegQuantError, match="with 0 contexts"):
        make(contexts=0)
