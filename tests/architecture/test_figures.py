"""Tables in the README are what the committed benchmarks print."""

from __future__ import annotations

import json
import re
import runpy

from tests.architecture.tree import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def test_the_readmes_table_is_the_benchmarks() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "end_to_end" / "zoo_compile.py"))
    record = json.loads((RESULTS / "zoo_compile.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- table: zoo_compile -->\n(.*?)\n<!-- end -->", readme, re.DOTALL)
    assert block is not None
    assert block.group(1).strip() == script["table"](record["rows"])


def test_results_name_hardware_and_versions() -> None:
    for path in RESULTS.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert "hardware" in record, path.name
        assert "versions" in {**record, **record["hardware"]}, path.name
