"""The GPU, asked through the driver's own libraries before TensorRT is touched.

Without a usable device TensorRT's `Builder` and `Runtime` are null or end the interpreter, so
whoever constructs one asks here first. `cuInit` makes no context and takes no device memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segquant_trt.errors import SegQuantError

CUDA_LIBRARY = "libcuda.so.1"
NVML_LIBRARY = "libnvidia-ml.so.1"

_LEAST_CAPABILITY = (7, 5)
_SUCCESS, _NO_DEVICE = 0, 100
_REASONS: dict[int, tuple[str, str]] = {
    3: ("the CUDA driver is shutting down", "start the program again"),
    34: (
        "libcuda.so.1 is the stub that the CUDA toolkit brings for linking, not a driver",
        "take the toolkit's 'stubs' folder out of LD_LIBRARY_PATH",
    ),
    _NO_DEVICE: (
        "the driver finds no CUDA device",
        "check `nvidia-smi`, CUDA_VISIBLE_DEVICES, and in a container `--gpus all`",
    ),
    803: (
        "the driver's library and its kernel module are of different versions",
        "restart the machine, or the container with the driver that the host has",
    ),
    804: (
        "this GPU does not support the CUDA forward-compatibility package that is installed",
        "remove cuda-compat from LD_LIBRARY_PATH, or update the driver itself",
    ),
}
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU. `cuda` is the newest CUDA that the driver supports.

    `driver` is empty and `free_bytes` None where the management library is not there to ask.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    free_bytes: int | None
    driver: str
    cuda: tuple[int, int]

    @property
    def capability(self) -> str:
        """As "9.0"."""
        return ".".join(map(str, self.compute_capability))


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def find_devices() -> tuple[Device, ...]:
    """The GPUs that this process may use, at least one.

    Raises:
        SegQuantError: there is no driver, it does not start, or it shows no device.
    """
    cuda = _driver_library()
    _check(cuda.cuInit(0))
    version = ctypes.c_int()
    _check(cuda.cuDriverGetVersion(ctypes.byref(version)))
    count = ctypes.c_int()
    _check(cuda.cuDeviceGetCount(ctypes.byref(count)))
    if count.value == 0:
        _check(_NO_DEVICE)
    newest = (version.value // 1000, version.value % 1000 // 10)
    management = _Management()
    return tuple(_device(cuda, index, newest, management) for index in range(count.value))


def find_device(index: int = 0) -> Device:
    """The GPU of this number.

    Raises:
        SegQuantError: as `find_devices`, or there are fewer.
    """
    found = find_devices()
    if not 0 <= index < len(found):
        listed = ", ".join(f"{each.index}: {each.name}" for each in found)
        raise SegQuantError(f"there is no GPU {index}; there is {listed}", hint="choose another")
    return found[index]


def check_tensorrt(device: Device, version: str, cuda_major: int | None) -> None:
    """Check that a TensorRT runs on this device.

    Args:
        version: of TensorRT.
        cuda_major: the CUDA generation that it was made for; None where that is not known.

    Raises:
        SegQuantError: the GPU is too old for it, or the driver is.
    """
    if device.compute_capability < _LEAST_CAPABILITY:
        raise SegQuantError(
            f"{device.name} has compute capability {device.capability}; TensorRT {version} "
            "needs 7.5 or newer",
            hint="use a newer GPU, or the target 'onnxruntime' on this machine's CPU",
        )
    if cuda_major is not None and device.cuda[0] < cuda_major:
        driver = f"driver {device.driver}" if device.driver else "the NVIDIA driver"
        raise SegQuantError(
            f"{driver} supports CUDA up to {device.cuda[0]}.{device.cuda[1]}, but the installed "
            f"TensorRT {version} is made for CUDA {cuda_major}",
            hint=f"update the driver, or pip install 'tensorrt-cu{device.cuda[0]}' if it exists",
        )


def check_precisions(capability: tuple[int, int], precisions: Sequence[str]) -> None:
    """Refuse codes that a GPU has no arithmetic for, before minutes of building.

    Raises:
        SegQuantError: naming the first of `precisions` ("int8", "fp8", "fp4") that is missing.
    """
    shown = f"{capability[0]}.{capability[1]}"
    for precision in precisions:
        if precision == "fp8" and capability < (8, 9):
            raise SegQuantError(
                f"the graph has FP8 codes; a GPU of compute capability {shown} has no FP8 "
                "arithmetic (8.9 and newer have)",
                hint="plan INT8 for this GPU",
            )
        if precision == "int8" and capability == (10, 3):
            raise SegQuantError(
                f"the graph has INT8 codes; a GPU of compute capability {shown} has no fast INT8 "
                "arithmetic",
                hint="plan FP8 for this GPU",
            )
        if precision == "fp4" and capability < (10, 0):
            raise SegQuantError(
                f"the graph has FP4 codes; a GPU of compute capability {shown} has no FP4 "
                "arithmetic (10.0 and newer have)",
                hint="plan FP8 or INT8 for this GPU",
            )


def _driver_library() -> Any:
    try:
        return ctypes.CDLL(CUDA_LIBRARY)
    except OSError as error:
        raise SegQuantError(
            f"there is no NVIDIA driver here: {CUDA_LIBRARY} cannot be loaded ({error})",
            hint="run this on a machine with an NVIDIA GPU and its driver; in a container pass "
            "`--gpus all`",
        ) from error


def _check(code: int) -> None:
    if code != _SUCCESS:
        what, hint = _REASONS.get(
            code, (f"the CUDA driver fails with error {code}", "check `nvidia-smi` and `dmesg`")
        )
        raise SegQuantError(f"no GPU can be used: {what}", hint=hint)


def _device(cuda: Any, index: int, newest: tuple[int, int], management: _Management) -> Device:
    handle = ctypes.c_int()
    _check(cuda.cuDeviceGet(ctypes.byref(handle), index))
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(cuda.cuDeviceGetName(name, _NAME_BYTES, handle))
    total = ctypes.c_size_t()
    _check(cuda.cuDeviceTotalMem_v2(ctypes.byref(total), handle))
    address = ctypes.create_string_buffer(_NAME_BYTES)
    _check(cuda.cuDeviceGetPCIBusId(address, _NAME_BYTES, handle))
    return Device(
        index=index,
        name=name.value.decode(errors="replace"),
        compute_capability=(
            _attribute(cuda, _CAPABILITY_MAJOR, handle),
            _attribute(cuda, _CAPABILITY_MINOR, handle),
        ),
        memory_bytes=total.value,
        free_bytes=management.free_bytes(address.value),
        driver=management.driver,
        cuda=newest,
    )


def _attribute(cuda: Any, number: int, handle: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _check(cuda.cuDeviceGetAttribute(ctypes.byref(value), number, handle))
    return value.value


class _Management:
    """What only NVML tells: free memory without a context, and the driver's own version.

    It numbers GPUs without regard to CUDA_VISIBLE_DEVICES, so devices are found by PCI address.
    """

    def __init__(self) -> None:
        self.driver = ""
        self._library: Any = None
        try:
            library: Any = ctypes.CDLL(NVML_LIBRARY)
        except OSError:
            return
        if library.nvmlInit_v2() == _SUCCESS:
            self._library = library
            text = ctypes.create_string_buffer(_NAME_BYTES)
            if library.nvmlSystemGetDriverVersion(text, _NAME_BYTES) == _SUCCESS:
                self.driver = text.value.decode(errors="replace")

    def free_bytes(self, address: bytes) -> int | None:
        """Free memory of the device with this PCI address."""
        if self._library is None:
            return None
        handle, memory = ctypes.c_void_p(), _Memory()
        found = self._library.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle))
        if found != _SUCCESS:
            return None
        asked = self._library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        return int(memory.free) if asked == _SUCCESS else None
