"""An engine that multiplies, on the CPU: the fake module reads and writes memory by address.

What it is told through TensorRT's interface (addresses, shapes, profile, stream) is all that it
computes from, so a wrong pointer or shape gives a wrong answer or a crash, as on a GPU.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segquant_trt.backends.tensorrt.device import Device
from segquant_trt.backends.tensorrt.installed import Installed, Log
from segquant_trt.backends.tensorrt.runtime.load import LoadedEngine, load_engine
from tests.contract.tensorrt.fake import VERSIONS, Script, fake_tensorrt
from tests.contract.tensorrt.workbench import GPU

WIDTH, OUT = 5, 3
WEIGHT = np.random.default_rng(0).standard_normal((WIDTH, OUT)).astype(np.float32)
PROFILES = (((1, WIDTH), (2, WIDTH), (4, WIDTH)), ((5, WIDTH), (16, WIDTH), (17, WIDTH)))


class OnCpu:
    """An accelerator whose streams are numbers and whose graphs are lists of calls."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.streams = 0
        self.shared: list[int] = []
        self.events: list[str] = []
        self.capturing: set[int] = set()  # threads

    @contextmanager
    def guard(self) -> Iterator[None]:
        yield

    def empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        return torch.full(shape, torch.nan, dtype=getattr(torch, dtype))

    def make_stream(self) -> int:
        self.streams += 1
        return self.streams

    def handle(self, stream: int) -> int:
        return 1000 + stream

    @contextmanager
    def ordered(self, stream: int) -> Iterator[None]:
        self.events.append("after the caller")
        yield
        self.events.append("before the caller")

    def share(self, tensor: torch.Tensor, stream: int) -> None:
        self.shared.append(tensor.data_ptr())

    def capture(self, stream: int, work: Callable[[], None]) -> Callable[[], None]:
        self.events.append("capture")
        self.capturing.add(threading.get_ident())
        try:
            work()
        finally:
            self.capturing.remove(threading.get_ident())

        def replay() -> None:
            self.events.append("replay")
            work()

        return replay

    def synchronize(self, stream: int) -> None:
        self.events.append("synchronize")


def view(address: int, shape: Sequence[int]) -> np.ndarray:
    """float32 memory at an address."""
    kind = ctypes.c_float * int(np.prod(shape))
    return np.ctypeslib.as_array(kind.from_address(address)).reshape(shape)


def tensorrt(
    accelerator: OnCpu | None = None,
    answers: Mapping[str, Any] | None = None,
    *,
    version: str = VERSIONS[-1],
    device: Device = GPU,
    profiles: Sequence[Sequence[Sequence[int]]] = PROFILES,
) -> tuple[Installed, Script]:
    """TensorRT of this version, whose engines compute y = x W."""
    module, script = fake_tensorrt(version)
    world = script.answers["world"]

    def remember(field: str) -> Any:
        def store(this: Any, name: str, **value: Any) -> bool:
            this.__dict__.setdefault(field, {})[name] = next(iter(value.values()))
            return True

        return store

    def execute(this: Any, stream_handle: int) -> bool:
        if accelerator is not None and threading.get_ident() in accelerator.capturing:
            return True
        shape, at = this.__dict__["shapes"]["x"], this.__dict__["addresses"]
        low, _, high = profiles[this.__dict__["profile"]]
        assert all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))
        view(at["y"], (shape[0], OUT))[:] = view(at["x"], shape) @ WEIGHT
        return True

    def choose(this: Any, profile_index: int, stream_handle: int) -> bool:
        this.__dict__["profile"] = profile_index
        return True

    def output_shape(this: Any, name: str) -> tuple[int, ...]:
        return (this.__dict__["shapes"]["x"][0], OUT)

    modes, locations = world.classes["TensorIOMode"], world.classes["TensorLocation"]
    script.answers |= {
        "ICudaEngine.num_io_tensors": 2,
        "ICudaEngine.get_tensor_name": lambda this, index: "xy"[index],
        "ICudaEngine.get_tensor_mode": lambda this, name: (
            modes.INPUT if name == "x" else modes.OUTPUT
        ),
        "ICudaEngine.get_tensor_dtype": lambda this, name: world.classes["DataType"].FLOAT,
        "ICudaEngine.get_tensor_shape": lambda this, name: (-1, {"x": WIDTH, "y": OUT}[name]),
        "ICudaEngine.get_tensor_location": lambda this, name: locations.DEVICE,
        "ICudaEngine.num_optimization_profiles": len(profiles),
        "ICudaEngine.get_tensor_profile_shape": lambda this, name, profile_index: list(
            profiles[profile_index]
        ),
        "ICudaEngine.device_memory_size_v2": 7 * 2**20,
        "IExecutionContext.set_input_shape": remember("shapes"),
        "IExecutionContext.set_tensor_address": remember("addresses"),
        "IExecutionContext.set_optimization_profile_async": choose,
        "IExecutionContext.get_tensor_shape": output_shape,
        "IExecutionContext.execute_async_v3": execute,
    }
    script.answers |= dict(answers or {})
    return Installed(module=module, version=version, device=device, log=Log()), script


def loaded(folder: Path, found: Installed, **options: Any) -> LoadedEngine:
    """An engine that some other tool wrote: without a record."""
    path = folder / "foreign.engine"
    path.write_bytes(b"anything")
    return load_engine(path, tensorrt=found, **options)
