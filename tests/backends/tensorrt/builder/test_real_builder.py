"""Our flow through a real parser and builder of NVIDIA's: TensorRT-RTX, without a GPU.

Not a proof that TensorRT itself builds these: that needs a GPU. But options, profiles, external
weights, errors of the parser, progress and cancellation go through the real objects here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.backends.tensorrt.rtx.workshop import needs_rtx

ROOT = Path(__file__).parents[4]
CHILD = "tests.backends.tensorrt.builder.rtx_child"


def run(folder: Path, options: str = "{}", **how: Any) -> dict[str, Any]:
    found = subprocess.run(
        [sys.executable, "-m", CHILD, str(folder), options,
         json.dumps({"damage": "", "stop_at": None} | how)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    answer: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return answer


@needs_rtx
def test_a_graph_with_weights_beside_it_is_built(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert found["bytes"] > 64 * 48  # the codes are in it
    assert found["shares"][-1] == 1000
    assert found["shares"] == sorted(found["shares"])
    log = (tmp_path / "log.txt").read_text()
    assert "[ONNX Layer: site0]" in log
    gemm = next(line for line in log.splitlines() if "LayerType: gemm" in line)
    assert "Datatype: Int8" in gemm
    # What was forecast is the least: the builder says what it came to.
    for kind in ("Weights", "Activation"):
        came_to = re.search(rf"Total {kind} Memory: (\d+) bytes", log)
        assert came_to is not None
        assert 0 < found["forecast"][kind] <= int(came_to[1])


@needs_rtx
def test_options_and_several_profiles(tmp_path: Path) -> None:
    options = """{
        "optimization_level": 2, "tiling_level": 1, "max_tactics": 4, "timing_iterations": 2,
        "max_aux_streams": 0, "weight_streaming": True, "use_timing_cache": False,
        "pools": (PoolLimit(pool="workspace", size_bytes=2**26),),
        "profiles": tuple(
            ShapeProfile(inputs=(ShapeRange(
                name="x", minimum=(low, 64), optimum=(low, 64), maximum=(high, 64)),))
            for low, high in ((1, 4), (5, 1025))
        ),
    }"""
    assert run(tmp_path, " ".join(options.split()))["bytes"] > 0


@needs_rtx
def test_the_parsers_errors_name_the_node(tmp_path: Path) -> None:
    told = run(tmp_path, damage="MatNul")["error"]
    assert told.startswith("TensorRT refuses the graph: node 'site0' (MatNul): ")


@needs_rtx
def test_a_build_that_is_stopped(tmp_path: Path) -> None:
    found = run(tmp_path, stop_at=400)
    assert found["error"] == "interrupted"
    assert found["shares"][-1] < 1000
