"""A loaded bundle: a function of named arrays, and a stand-in for a diffusers denoiser."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from segquant_trt.backends import Runner
from segquant_trt.records import Manifest
from segquant_trt.serve.frozen_runner import FrozenRunner
from segquant_trt.serve.hoisted_runner import HoistedRunner
from segquant_trt.serve.inputs import Array, check_inputs


class CompiledDenoiser:
    """What `load` returns. Calls from several threads at once are safe.

    Assign it to `pipe.unet` or `pipe.transformer`: it takes the keyword arguments of that
    denoiser's `forward`, and has its `config`, `dtype` and `device`.
    """

    def __init__(
        self, manifest: Manifest, runner: Runner, hoisted: HoistedRunner | None = None
    ) -> None:
        self.manifest = manifest
        self._runner = runner
        self._hoisted = hoisted

    @property
    def fallback_calls(self) -> int:
        """How many calls ran without tables, because a timestep was not among the frozen ones."""
        return self._runner.fallback_calls if isinstance(self._runner, FrozenRunner) else 0

    @property
    def prompt_runs(self) -> int:
        """How often the graph ran that runs once per prompt; 0 where nothing was hoisted."""
        return 0 if self._hoisted is None else self._hoisted.prompt_runs

    def run(self, inputs: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """The prediction for arrays by flat dotted name (`added_cond_kwargs.text_embeds`).

        Raises:
            SegQuantError: an input is missing, unknown, or of a wrong type, rank or size; or a
                timestep is not frozen, in a bundle without fallback.
        """
        check_inputs(inputs, self.manifest)
        output = self.manifest.output.name
        return np.asarray(self._runner.run(inputs, [output])[output], dtype=np.float32)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """`forward` of the diffusers denoiser, on torch tensors."""
        return self._drop_in(*arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._drop_in, name)

    @functools.cached_property
    def _drop_in(self) -> Any:
        from segquant_trt.models import family_for
        from segquant_trt.models.drop_in import DropIn

        return DropIn(self.run, family_for(self.manifest.class_name), self.manifest.config)
