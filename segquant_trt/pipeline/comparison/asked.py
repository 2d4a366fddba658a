"""What a comparison's words stand for: `bundle`, `run/model.onnx`, `torch:run`, `torchao-fp8`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from segquant_trt.errors import SegQuantError
from segquant_trt.records.bundle_layout import MANIFEST

Kind = Literal[
    "bundle",
    "float",
    "onnxruntime",
    "openvino",
    "engine",
    "torch",
    "torch-compile",
    "torchao-fp8",
    "tensorrt-fp16",
    "tensorrt-fp8",
    "tensorrt-int8",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
_WHOLE = ("bundle", "model.onnx")  # a run folder's own
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")
_FORMS = (
    "give a bundle, a run folder, an .onnx file or an engine "
    f"({', '.join(ENGINE_SUFFIXES)}), or KIND:PATH with one of {', '.join(KINDS)}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One subject as it was named; `where` is a path, or for torch also a model's name."""

    kind: Kind
    where: str

    @property
    def text(self) -> str:
        """The words that name it again."""
        return f"{self.kind}:{self.where}"


def asked_for(texts: Iterable[str], *, beside: Path | None = None) -> list[Asked]:
    """What each text names.

    Args:
        beside: the run folder that a kind without a path refers to.

    Raises:
        SegQuantError: a path does not exist or is nothing that can be timed.
    """
    return [_asked(text, beside) for text in texts]


def _asked(text: str, beside: Path | None) -> Asked:
    prefix, colon, rest = text.partition(":")
    for kind in KINDS:
        if text == kind and not Path(text).exists():
            return Asked(kind=kind, where=str(_run_needed(kind, beside)))
        if prefix == kind and colon:
            return Asked(kind=kind, where=rest or str(_run_needed(kind, beside)))
    return Asked(kind=kind_of(Path(text)), where=_bundle_in(text))


def _run_needed(kind: Kind, beside: Path | None) -> Path:
    if beside is None:
        raise SegQuantError(
            f"'{kind}' names no model, and no subject lies in a run folder",
            hint=f"name one as {kind}:RUN",
        )
    return beside


def _bundle_in(text: str) -> str:
    path = Path(text)
    return str(path / "bundle") if is_run(path) else text


def kind_of(path: Path) -> Kind:
    """How a path alone is timed.

    Raises:
        SegQuantError: it does not exist, or is nothing that can be timed.
    """
    if not path.exists():
        raise SegQuantError(f"{path} does not exist", hint=_FORMS)
    if path.is_dir():
        if (path / MANIFEST).exists() or is_run(path):
            return "bundle"
        raise SegQuantError(
            f"{path} is no bundle (it has no {MANIFEST}) and no run folder (no model.yaml)",
            hint=_FORMS,
        )
    if path.suffix == ".onnx":
        return "onnxruntime"
    if path.suffix in ENGINE_SUFFIXES:
        return "engine"
    raise SegQuantError(f"{path} is no ONNX file and no engine by its name", hint=_FORMS)


def is_run(path: Path) -> bool:
    """Whether a folder is a run folder with an exported model."""
    return (path / "model.yaml").exists() and not (path / MANIFEST).exists()


def run_of(asked: Asked) -> Path | None:
    """The run folder that a subject lies in; None for one that stands alone."""
    path = Path(asked.where)
    if is_run(path):
        return path
    parent = path.resolve().parent
    return parent if path.exists() and is_run(parent) else None


def exported_in(asked: Asked) -> Path | None:
    """The run folder whose float graph a subject is, by its folder or the graph's own file."""
    path, run = Path(asked.where), run_of(asked)
    return run if path.is_dir() or path.name == "model.onnx" else None


def named(asked: Asked) -> str:
    """How tables call it: by its run folder, file or model, and what it is unless a bundle."""
    path = Path(asked.where)
    run = run_of(asked)
    name = path.resolve().name if path.exists() else asked.where
    if run is not None:
        whole = is_run(path) or path.name in _WHOLE
        name = run.resolve().name if whole else f"{run.resolve().name}/{name}"
    elif path.is_file():
        name = f"{path.resolve().parent.name}/{name}"
    return name if asked.kind == "bundle" else f"{name} ({_word(asked)})"


def _word(asked: Asked) -> str:
    if asked.kind in ("onnxruntime", "engine"):
        return "ONNX Runtime" if asked.kind == "onnxruntime" else "TensorRT"
    return asked.kind


def unique_names(subjects: Iterable[Asked]) -> list[str]:
    """Names by which all can be told apart."""
    names: list[str] = []
    for asked in subjects:
        name, count = named(asked), 1
        while name in names:
            count += 1
            name = f"{named(asked)} #{count}"
        names.append(name)
    return names
