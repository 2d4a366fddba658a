"""The torch module of a checkpoint, eager or compiled, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segquant_trt.bench.baselines.events import CudaEvents
from segquant_trt.bench.timed import Timed, converted
from segquant_trt.errors import SegQuantError
from segquant_trt.records import TensorSpec

if TYPE_CHECKING:
    from segquant_trt.models.family import Family
    from segquant_trt.models.loop import Array, Float32

TorchDtype = Literal["float32", "float16", "bfloat16"]
Prepare = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSubject:
    """A denoiser of diffusers.

    Args:
        module: in evaluation mode, on its device and in its type.
        compiled: compiled anew for every size (`torch.compile`, static shapes).
        gpu: its address on the bus, None on the CPU.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    module: Any
    family: Family
    device: str
    dtype: TorchDtype
    compiled: bool
    pci_bus_id: str | None = None

    def bind(self, inputs: Mapping[str, Array]) -> Timed:
        """The module on these inputs, which are moved to its device once.

        Raises:
            SegQuantError: torch cannot compile it here.
        """
        import torch

        given = {
            name: _tensor(array, self.device, self.dtype)
            for name, array in converted(inputs, self.inputs, self.name).items()
        }
        arguments = self.family.nest(given) | {"return_dict": False}
        call = self.module
        if self.compiled:
            torch.compiler.reset()
            call = torch.compile(self.module, dynamic=False)
        events = None if self.pci_bus_id is None else CudaEvents(torch.cuda)
        timed = TorchTimed(name=self.name, call=call, arguments=arguments, events=events)
        if self.compiled:
            _first_call(timed)
        return timed


@dataclass(slots=True, kw_only=True)
class TorchTimed:
    """One call with fixed arguments, timed by events on a GPU and by wall clock on a CPU."""

    name: str
    call: Any
    arguments: Mapping[str, Any]
    events: CudaEvents | None
    _last: Any = field(default=None)

    def run(self) -> float | None:
        """One call; milliseconds between the GPU's events."""
        import torch

        with torch.inference_mode():
            if self.events is None:
                self._last = self.call(**self.arguments)
                return None
            return self.events.time(self._call)

    def _call(self) -> None:
        self._last = self.call(**self.arguments)

    def answer(self) -> Float32:
        """The prediction of the last call, on the host."""
        found: Float32 = self._last[0].float().cpu().numpy()
        return found


def torch_subject(
    name: str,
    module: Any,
    family: Family,
    inputs: tuple[TensorSpec, ...],
    *,
    device: str,
    dtype: TorchDtype,
    compiled: bool,
    prepare: Prepare | None = None,
) -> TorchSubject:
    """A module as a subject, moved to its device and type.

    Args:
        module: in float32 on the CPU.
        prepare: what is done to it there before it is compiled.

    Raises:
        SegQuantError: there is no such device.
    """
    import torch

    pci_bus_id = None if device == "cpu" else cuda_bus_id(torch.cuda, name)
    moved = module.to(device=device, dtype=getattr(torch, dtype)).requires_grad_(False)
    return TorchSubject(
        name=name,
        inputs=inputs,
        module=moved if prepare is None else prepare(moved),
        family=family,
        device=device,
        dtype=dtype,
        compiled=compiled,
        pci_bus_id=pci_bus_id,
    )


def cuda_bus_id(cuda: Any, name: str) -> str:
    """The address of the current GPU, as NVML spells it (`00000000:01:00.0`).

    Args:
        cuda: `torch.cuda`.

    Raises:
        SegQuantError: torch sees no GPU.
    """
    if not cuda.is_available():
        raise SegQuantError(
            f"{name} runs on an NVIDIA GPU, and torch sees none here",
            hint="run this on a machine with a GPU and a CUDA build of torch; "
            "--device cpu times torch itself on this processor",
        )
    found = cuda.get_device_properties(cuda.current_device())
    return f"{found.pci_domain_id:08x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}.0"


def _tensor(array: Array, device: str, dtype: TorchDtype) -> Any:
    import torch

    tensor = torch.from_numpy(np.array(array, order="C")).to(device)
    return tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor


def _first_call(timed: TorchTimed) -> None:
    try:
        timed.run()
    except SegQuantError:
        raise
    except Exception as error:  # a compiler's exceptions share no base class
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise SegQuantError(
            f"torch.compile fails on {timed.name}: {type(error).__name__}: {reason}",
            hint="it needs a C++ compiler on a CPU and Triton on a GPU; leave this baseline out "
            "where they are missing",
        ) from error
