from __future__ import annotations

import builtins
import json
import sys
from dataclasses import replace
from typing import Any

import pytest

from segquant_trt.errors import MissingDependencyError
from segquant_trt.records import TARGETS
from segquant_trt.report.dependencies import parse_requirements
from segquant_trt.report.doctor import examine, usable_targets
from segquant_trt.report.machine import Gpu, parse_cpuinfo

REQUIREMENTS = (
    "numpy>=1.26",
    "click>=999",
    "segquant-absent-package<3,>=2.1",
    'openvino>=1; extra == "openvino"',
    'absent-too>=2; extra == "baselines"',
    'segquant-trt[test]; extra == "dev"',
    'absent-elsewhere; sys_platform == "nowhere"',
)


def test_requirements_are_looked_up() -> None:
    found = {item.name: item for item in parse_requirements(REQUIREMENTS)}
    assert set(found) == {
        "numpy", "click", "segquant-absent-package", "openvino", "absent-too",
    }  # fmt: skip
    assert found["numpy"].fits
    assert found["numpy"].command is None
    assert found["click"].installed is not None
    assert not found["click"].fits
    assert found["click"].command == "pip install 'click>=999'"
    assert found["segquant-absent-package"].installed is None
    assert found["absent-too"].command == "pip install 'segquant-trt[baselines]'"
    assert found["absent-too"].extra == "baselines"


def test_targets_follow_their_packages() -> None:
    missing, old, rtx = usable_targets(
        parse_requirements(("onnxruntime>=999", 'openvino<0.1; extra == "openvino"'))
    )
    assert (missing.target, missing.usable) == ("onnxruntime", False)
    assert "does not fit >=999" in missing.reason
    assert (old.target, old.usable) == ("openvino", False)
    assert rtx.reason.startswith("tensorrt-rtx ")
    (here, *_) = usable_targets(parse_requirements(("onnxruntime>=1",)))
    assert here.usable


def test_missing_packaging_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("packaging"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match="packaging"):
        parse_requirements(REQUIREMENTS)


def test_this_machine() -> None:
    before = set(sys.modules)
    diagnosis = examine()
    backends = {"tensorrt", "onnxruntime", "openvino", "torch"}
    assert not backends & (set(sys.modules) - before)
    plain = diagnosis.as_dict()
    assert plain == json.loads(json.dumps(plain, allow_nan=False))
    assert plain["properties"]["cores"] >= 1
    assert {row["target"] for row in plain["tables"]["targets"]} == set(TARGETS)
    assert diagnosis.text().startswith("segquant-trt ")


def test_instruction_sets_and_advice() -> None:
    here = examine()
    slow = replace(here, processor=parse_cpuinfo("flags\t: avx2 sse"))
    fast = replace(here, processor=parse_cpuinfo("flags\t: avx2 avx512_vnni amx_int8"))
    named = [row["name"] for row in fast.as_dict()["tables"]["instruction sets"]]
    assert named == ["amx_int8", "avx512_vnni", "avx2"]
    assert any("no INT8 dot products" in note for note in slow.as_dict()["notes"])
    assert not any("no INT8 dot products" in note for note in fast.as_dict()["notes"])


def test_gaps_become_advice() -> None:
    diagnosis = replace(
        examine(),
        dependencies=parse_requirements(REQUIREMENTS),
        gpus=(Gpu(name="NVIDIA H200", memory_bytes=None, driver="570", compute_capability="9.0"),),
    )
    text = diagnosis.text()
    assert "pip install 'segquant-absent-package<3,>=2.1'" in text
    assert "NVIDIA H200" in text
    notes = diagnosis.as_dict()["notes"]
    assert any(note.startswith("click >=999 is needed by every command") for note in notes)
    assert not any("absent-too" in note for note in notes)
