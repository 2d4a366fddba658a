"""Checkpoints larger than memory: exported without reading a byte of their weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segquant_trt.graph.bigfile import external_range, load_graph
from segquant_trt.records import ModelSpec
from segquant_trt.records.codec import read_record
from tests.sparse_checkpoint import FLUX_DEV, allocated_bytes, write_sparse_checkpoint

# FLUX.1-dev's widths with fewer blocks; float32 weights of a quarter of any CI machine's memory.
BLOCKS = {"num_layers": 6, "num_single_layers": 12}
LIMIT_BYTES = 1536 << 20
EXPORT = """
import resource, sys
from pathlib import Path
from segquant_trt.export import export
from segquant_trt.models.source import resolve
export(resolve(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)  # it is in KiB
"""


@pytest.mark.full
def test_a_flux_sized_checkpoint_is_never_read(tmp_path: Path) -> None:
    files = write_sparse_checkpoint(tmp_path / "model", FLUX_DEV | BLOCKS, shards=2)
    size = sum(file.stat().st_size for file in files)
    assert size > 7 << 30
    before = [allocated_bytes(file) for file in files]
    # In a process of its own: its largest child is the export, whatever other tests have started.
    command = [sys.executable, "-c", EXPORT, str(tmp_path / "model"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < LIMIT_BYTES
    spec = read_record(tmp_path / "run" / "model.yaml", ModelSpec)
    assert [allocated_bytes(file) for file in files] == before
    assert spec.validation is not None
    assert spec.validation.subject == "two-block cut with random weights"
    assert spec.size_bytes_float == size
    initializers = load_graph(tmp_path / "run" / "model.onnx").graph.initializer
    external = [t for t in initializers if external_range(t) is not None]
    stored = {entry.value for t in external for entry in t.external_data if entry.key == "location"}
    assert stored == {file.name for file in files}
    assert (tmp_path / "run" / "model.onnx").stat().st_size < 10 << 20
    assert not list((tmp_path / "run").glob(".*"))
