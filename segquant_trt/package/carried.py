"""Source files that go with a model, so that a server needs NumPy and ONNX Runtime alone."""

from __future__ import annotations

from pathlib import Path

import segquant_trt

CARRIED_PACKAGE = "segquant_served"

_ROOT = Path(segquant_trt.__file__).parent
_MODEL = "package/served/triton_model.py"
_MODULES = (
    "errors.py",
    "records/axes.py",
    "records/files.py",
    "records/frozen_steps.py",
    "records/hoisted_prompt.py",
    "records/model_spec.py",
    "records/step_rows.py",
    "package/served/calls.py",
    "package/served/description.py",
    "package/served/graphs.py",
    "package/served/sessions.py",
)
_PACKAGES = ("", "records", "package", "package/served")


def carry_sources(version_folder: Path) -> None:
    """Write `model.py` and the package that it imports into a model's version folder.

    The package has another name, so that it never meets an installed `segquant_trt`.
    """
    for name in _PACKAGES:
        folder = version_folder / CARRIED_PACKAGE / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text('"""Copied from segquant_trt."""\n', encoding="utf-8")
    for name in _MODULES:
        _copy(_ROOT / name, version_folder / CARRIED_PACKAGE / name)
    _copy(_ROOT / _MODEL, version_folder / "model.py")


def _copy(source: Path, destination: Path) -> None:
    text = source.read_text(encoding="utf-8")
    destination.write_text(
        text.replace("from segquant_trt.", f"from {CARRIED_PACKAGE}."), encoding="utf-8"
    )
