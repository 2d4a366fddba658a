"""Export a checkpoint of FLUX.1-dev's shape (sparse files, 24 GB apparent size) and measure.

    python benchmarks/end_to_end/flux_export.py

Writes benchmarks/results/flux_export.json: wall and CPU seconds, peak resident memory of all
processes, and that no block of the checkpoint was allocated.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from segquant_trt.export import export  # noqa: E402
from segquant_trt.models.source import resolve  # noqa: E402
from segquant_trt.records.files import atomic_write_json  # noqa: E402
from tests.sparse_checkpoint import FLUX_DEV, allocated_bytes, write_sparse_checkpoint  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "flux_export.json"
PACKAGES = ("torch", "diffusers", "onnx", "onnxscript", "onnx-ir", "onnxruntime")


class PeakMemory:
    """The largest sum of resident sizes of this process and its children, sampled."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while not self._stop.wait(0.1):
            total = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, run = Path(scratch) / "transformer", Path(scratch) / "run"
        files = make_checkpoint(folder)
        before = [allocated_bytes(file) for file in files]
        load_before = os.getloadavg()[0]
        started = time.perf_counter()
        with PeakMemory() as memory:
            spec = export(resolve(str(folder)), run, on_progress=say)
        wall_s = time.perf_counter() - started
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = resource.getrusage(resource.RUSAGE_SELF)
        assert spec.validation is not None
        atomic_write_json(
            RESULT,
            {
                "wall_s": round(wall_s, 1),
                "cpu_s_export_process": round(children.ru_utime + children.ru_stime, 1),
                "peak_rss_mib_all_processes": memory.peak_bytes >> 20,
                "peak_rss_mib_export_process": children.ru_maxrss >> 10,
                "peak_rss_mib_parent": own.ru_maxrss >> 10,
                "checkpoint_bytes": spec.size_bytes_float,
                "checkpoint_bytes_allocated_before": sum(before),
                "checkpoint_bytes_allocated_after": sum(map(allocated_bytes, files)),
                "graph_bytes": (run / "model.onnx").stat().st_size,
                "graph_sha256": spec.onnx_sha256,
                "validation": spec.validation.subject,
                "validation_max_relative_error": spec.validation.max_relative_error,
                "load_average_before": round(load_before, 2),
                "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
                "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            },
        )
    print(RESULT.read_text())


def make_checkpoint(folder: Path) -> tuple[Path, ...]:
    """Write the sparse files in a process of its own: torch shall not count in the parent."""
    child = os.fork()
    if child == 0:
        write_sparse_checkpoint(folder, FLUX_DEV, shards=3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit("the sparse checkpoint could not be written")
    return tuple(sorted(folder.glob("*.safetensors")))


def say(fraction: float, text: str) -> None:
    print(f"{100 * fraction:3.0f} % {text}", file=sys.stderr)


if __name__ == "__main__":
    main()
