"""Plugin libraries, looked at before they are loaded: `dlopen` of a wrong one says little.

Device code lies in the ELF section `.nv_fatbin` as a chain of entries (layout as the open-source
readers of fat binaries describe it): magic, version, header bytes, payload bytes; then per entry
its kind (1 PTX, 2 machine code), header bytes, payload bytes, and at byte 28 the architecture.
"""

from __future__ import annotations

import ctypes
import platform
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import PluginLibrary
from segquant_trt.records.files import sha256_file

if TYPE_CHECKING:
    import tensorrt as trt

    from segquant_trt.backends.tensorrt.device import Device
    from segquant_trt.backends.tensorrt.installed import Installed

_MACHINES = {"x86_64": 62, "aarch64": 183}
_ELF_HEADER, _SECTION = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ")
_FATBIN = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHI")
_FATBIN_MAGIC = 0xBA55ED50
_PTX = 1
_ENTRY_POINTS = (b"\0getCreators\0", b"\0getPluginCreators\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """Code for GPUs of one architecture, as 89 for compute capability 8.9."""

    architecture: int
    portable: bool  # PTX, which newer GPUs compile for themselves

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """PTX runs on this and later architectures, machine code within one generation."""
        major, minor = divmod(self.architecture, 10)
        if self.portable:
            return (major, minor) <= capability
        return major == capability[0] and minor <= capability[1]


def check_libraries(libraries: Sequence[Path], device: Device) -> tuple[PluginLibrary, ...]:
    """Check that plugin libraries are there, and made for this processor and GPU.

    Raises:
        SegQuantError: naming the library, and what it is instead.
    """
    return tuple(_checked(path, device) for path in libraries)


def load_libraries(
    tensorrt: Installed, registry: trt.IPluginRegistry, libraries: Sequence[Path]
) -> None:
    """Register their creators.

    Raises:
        SegQuantError: a library cannot be loaded.
    """
    for path in libraries:
        tensorrt.log.clear()
        handle = registry.load_library(str(path.resolve()))
        if handle is None:
            # TensorRT says nothing of why `dlopen` failed.
            reason = _loading_error(path) or tensorrt.log.reason()
            raise SegQuantError(
                f"plugin library {path} cannot be loaded: {reason}",
                hint="build it again for this machine and this TensorRT: segquant-trt plugin build",
            )


def _loading_error(path: Path) -> str | None:
    try:
        ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        return str(error)
    return None


def _checked(path: Path, device: Device) -> PluginLibrary:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SegQuantError(
            f"plugin library {path} cannot be read: {error.strerror}",
            hint="build it with `segquant-trt plugin build`, or correct the path",
        ) from error
    _check_processor(path, data)
    if not any(name in data for name in _ENTRY_POINTS):
        raise SegQuantError(
            f"plugin library {path} brings no TensorRT plugin: it has no function getCreators",
            hint="give the .so file that `segquant-trt plugin build` wrote",
        )
    codes = list(device_codes(data))
    if codes and not any(code.runs_on(device.compute_capability) for code in codes):
        made_for = ", ".join(sorted({f"sm_{code.architecture}" for code in codes}))
        wanted = "".join(map(str, device.compute_capability))
        raise SegQuantError(
            f"plugin library {path} has code for {made_for}; {device.name} needs sm_{wanted}",
            hint=f"segquant-trt plugin build --arch sm_{wanted}",
        )
    return PluginLibrary(name=path.name, sha256=sha256_file(path))


def _check_processor(path: Path, data: bytes) -> None:
    if len(data) < _ELF_HEADER.size or data[:4] != b"\x7fELF" or data[4] != 2:
        raise SegQuantError(
            f"plugin library {path} is no 64-bit shared library",
            hint="give the .so file that `segquant-trt plugin build` wrote",
        )
    machine, here = _ELF_HEADER.unpack_from(data)[2], platform.machine()
    if machine != _MACHINES.get(here, machine):
        names = {number: name for name, number in _MACHINES.items()}
        raise SegQuantError(
            f"plugin library {path} is for {names.get(machine, f'machine {machine}')}, "
            f"this is {here}",
            hint="build it on this machine: segquant-trt plugin build",
        )


def device_codes(data: bytes) -> Iterator[DeviceCode]:
    """What GPUs an ELF file has code for; nothing where it has none, or is cut off."""
    for start, size in _fatbins(data):
        end = min(start + size, len(data))
        while start + _FATBIN.size <= end:
            magic, _, header, payload = _FATBIN.unpack_from(data, start)
            if magic != _FATBIN_MAGIC:
                start += 8  # sections pad the chain's links
                continue
            yield from _entries(data, start + header, min(start + header + payload, end))
            start += header + payload


def _entries(data: bytes, start: int, end: int) -> Iterator[DeviceCode]:
    while start + _ENTRY.size <= end:
        kind, _, header, size, *_, architecture = _ENTRY.unpack_from(data, start)
        if header < _ENTRY.size:
            return
        yield DeviceCode(architecture=architecture, portable=kind == _PTX)
        start += header + size


def _fatbins(data: bytes) -> Iterator[tuple[int, int]]:
    """Offset and size of the sections called `.nv_fatbin`."""
    fields = _ELF_HEADER.unpack_from(data)
    table, entry_size, count, names = fields[6], fields[11], fields[12], fields[13]
    if entry_size != _SECTION.size or table + count * entry_size > len(data) or names >= count:
        return
    sections = [_SECTION.unpack_from(data, table + index * entry_size) for index in range(count)]
    strings = sections[names][4]
    for name, _, _, _, offset, size, *_ in sections:
        if data.startswith(b".nv_fatbin\0", strings + name):
            yield offset, size
