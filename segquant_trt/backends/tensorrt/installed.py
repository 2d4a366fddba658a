"""The installed `tensorrt` package: which one it is, and the one logger that a process needs.

One code path serves TensorRT 10.9 to 11.x. What differs between them is asked by name, never by
number: `NetworkDefinitionCreationFlag.STRONGLY_TYPED` is 1 in 10.x and 0 in 11.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from segquant_trt.backends.tensorrt.device import Device, check_tensorrt, find_device
from segquant_trt.errors import MissingDependencyError, SegQuantError
from segquant_trt.records.files import writing_failed

if TYPE_CHECKING:
    import tensorrt as trt

_OLDEST, _BEYOND = (10, 9), (12, 0)
_LETTERS = "FEWIV"  # of the severities, 0 to 4
_ERROR, _WARNING = 1, 2
_KEPT = 100
_PACKAGES = re.compile(r"tensorrt[-_]cu(\d+)(?:[-_](?:bindings|libs))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """TensorRT, a GPU that it runs on, and the logger that all its objects share."""

    module: Any
    version: str
    device: Device
    log: Log


def installed(index: int = 0) -> Installed:
    """TensorRT and the GPU of this number, both checked; nothing of TensorRT is constructed.

    Raises:
        MissingDependencyError: the package is not installed.
        SegQuantError: its version is another than this program knows, its libraries are missing,
            or there is no GPU that it can use.
    """
    module = tensorrt_module()
    version = str(module.__version__)
    device = find_device(index)
    check_tensorrt(device, version, cuda_major())
    return Installed(module=module, version=version, device=device, log=shared_log())


def tensorrt_module() -> Any:
    """The package itself.

    Raises:
        MissingDependencyError: it is not installed.
        SegQuantError: it is broken, or of a version outside 10.9 to 11.x.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "tensorrt", extra="tensorrt", why="building and running engines"
        ) from error
    except (ImportError, OSError) as error:
        raise SegQuantError(
            f"the package 'tensorrt' is installed, but its libraries cannot be loaded: {error}",
            hint="install it whole: pip install --force-reinstall tensorrt",
        ) from error
    check_version(str(tensorrt.__version__))
    return tensorrt


def check_version(version: str) -> None:
    """Refuse versions that this program does not know.

    Raises:
        SegQuantError: it is not one of 10.9 to 11.x.
    """
    if not _OLDEST <= version_of(version)[:2] < _BEYOND:
        raise SegQuantError(
            f"TensorRT {version} is installed; this program knows 10.9 to 11.x",
            hint="pip install 'tensorrt>=10.13,<12'",
        )


def version_of(text: str) -> tuple[int, ...]:
    """`10.13.3.9.post1` as numbers: (10, 13, 3, 9)."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def cuda_major() -> int | None:
    """The CUDA generation of the installed package, from its name; None where it is not told."""
    for distribution in metadata.distributions():
        found = _PACKAGES.fullmatch(distribution.metadata["Name"] or "")
        if found:
            return int(found[1])
    return None


@dataclass(slots=True)
class Log:
    """Lines of TensorRT, from any thread: errors and warnings are kept, all go to `stream`."""

    errors: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    warnings: list[str] = field(default_factory=list)
    stream: IO[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _logger: Any = None

    def write(self, severity: int, message: str) -> None:
        """One line; never raises, for it is called from C++."""
        with self._lock:
            if severity <= _ERROR:
                self.errors.append(message)
            elif severity == _WARNING and message not in self.warnings:
                self.warnings.append(message)
                del self.warnings[:-_KEPT]
            if self.stream is not None and not self.stream.closed:
                self.stream.write(f"[{_LETTERS[severity]}] {message}\n")
                if severity <= _WARNING:
                    self.stream.flush()  # a crash must not lose them

    def clear(self) -> None:
        """Forget what earlier calls said."""
        self.forget_errors()
        with self._lock:
            self.warnings.clear()

    def forget_errors(self) -> None:
        """Forget errors that came to nothing; warnings stay."""
        with self._lock:
            self.errors.clear()

    def reason(self) -> str:
        """Why something failed, in TensorRT's words."""
        return "; ".join([*dict.fromkeys(self.errors)][:3]) or "TensorRT gave no reason"

    def logger(self, module: Any) -> trt.ILogger:
        """The same object at every call: TensorRT keeps the first logger of a process."""
        if self._logger is None:
            self._logger = _logger(module, self)
        return self._logger


_SHARED = Log()


def shared_log() -> Log:
    """The process's log."""
    return _SHARED


def open_log(path: Path) -> IO[str]:
    """The file for a verbose log.

    Raises:
        SegQuantError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8", errors="replace")
    except OSError as error:
        raise writing_failed(path, error) from error


def _logger(module: Any, log: Log) -> trt.ILogger:
    class Lines(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            log.write(int(severity), msg)

    return Lines()
