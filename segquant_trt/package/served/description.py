"""`served.json`: what a model's version folder holds, and how its calls are made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records.files import sha256_file
from segquant_trt.records.frozen_steps import FrozenSteps
from segquant_trt.records.hoisted_prompt import HoistedPrompt
from segquant_trt.records.model_spec import AxisRange, TensorSpec

DESCRIPTION = "served.json"
GRAPHS = "graphs"

_AGAIN = "run 'segquant-trt package triton' again"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFile:
    """A file in the folder of the graphs."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """`batch_axis` is the first axis of every input but those in `shared`; None: no such axis.

    The server's clients give shared inputs once per sample, and equal for all of them.
    """

    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    axes: tuple[AxisRange, ...]
    batch_axis: str | None
    shared: tuple[str, ...]
    frozen: FrozenSteps | None
    hoisted: HoistedPrompt | None
    files: tuple[ServedFile, ...]
    onnxruntime: str  # the version that the bundle was built and proven with
    bundle_sha256: str

    def plain(self) -> dict[str, Any]:
        """As JSON's values."""
        return dataclasses.asdict(self)


def read_description(version_folder: Path) -> Description:
    """The description of a version folder whose files are all there and unaltered.

    Raises:
        SegQuantError: a file is missing, truncated or altered.
    """
    path = version_folder / DESCRIPTION
    try:
        description = _parsed(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SegQuantError(f"{path} is missing or damaged: {error}", hint=_AGAIN) from error
    for file in description.files:
        if sha256_file(version_folder / GRAPHS / file.name) != file.sha256:
            raise SegQuantError(
                f"{version_folder / GRAPHS / file.name} was altered: its sha256 differs",
                hint=_AGAIN,
            )
    return description


def _parsed(plain: Mapping[str, Any]) -> Description:
    frozen, hoisted = plain["frozen"], plain["hoisted"]
    return Description(
        inputs=tuple(_tensor(entry) for entry in plain["inputs"]),
        output=_tensor(plain["output"]),
        axes=tuple(AxisRange(**entry) for entry in plain["axes"]),
        batch_axis=plain["batch_axis"],
        shared=tuple(plain["shared"]),
        frozen=None if frozen is None else FrozenSteps(**_with_tuples(frozen)),
        hoisted=None if hoisted is None else HoistedPrompt(**_with_tuples(hoisted)),
        files=tuple(ServedFile(**entry) for entry in plain["files"]),
        onnxruntime=plain["onnxruntime"],
        bundle_sha256=plain["bundle_sha256"],
    )


def _tensor(plain: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(**_with_tuples(plain))


def _with_tuples(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
    }
