"""What a family of denoisers is: its inputs, axes and sizes, in diffusers' forward semantics.

Tensors have flat dotted names: `added_cond_kwargs.text_embeds` is the entry `text_embeds` of the
dict argument `added_cond_kwargs` of `forward`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segquant_trt.errors import SegQuantError
from segquant_trt.records import AxisRange, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Config = Mapping[str, Any]
FlatInputs = dict[str, "npt.NDArray[np.generic]"]

# Not `sample`: that is an input of UNets, and graph names are unique.
OUTPUT = "out_sample"
BATCH = AxisRange(name="batch", minimum=1, typical=2, maximum=64)


class Family(ABC):
    """One diffusers denoiser class.

    A subclass describes the inputs of `forward` for a given `config.json`; everything else
    (examples, dynamic axes, nesting) follows from that description.
    """

    name: ClassVar[str]
    class_name: ClassVar[str]
    module: ClassVar[str]
    component: ClassVar[Literal["unet", "transformer"]]
    timestep: ClassVar[str] = "timestep"
    timestep_range: ClassVar[tuple[float, float]] = (0.0, 1000.0)
    # The constructor's defaults of what a family reads: published configurations leave keys out,
    # and importing diffusers to ask takes seconds.
    defaults: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def sizes(self, config: Config) -> tuple[AxisRange, ...]:
        """The dynamic axes with their allowed and typical lengths."""

    @abstractmethod
    def inputs(self, config: Config) -> tuple[TensorSpec, ...]:
        """Inputs of `forward`; shapes name the axes of `sizes`.

        Raises:
            SegQuantError: the configuration asks for an input that this family does not know.
        """

    @abstractmethod
    def output(self, config: Config) -> TensorSpec:
        """The prediction, always called `OUTPUT`."""

    @abstractmethod
    def prompt_inputs(self, config: Config) -> tuple[str, ...]:
        """Inputs that depend on the prompt alone, constant over a trajectory."""

    @abstractmethod
    def cut(self, config: Config) -> dict[str, Any]:
        """The same architecture with two blocks per kind and few heads, for validation."""

    def complete(self, config: Config) -> dict[str, Any]:
        """`config` with the constructor's defaults for the keys that it leaves out."""
        return {**self.defaults, **config}

    def input_axes(self, config: Config) -> dict[str, dict[int, str]]:
        """Dynamic axes by input name: position to axis name."""
        return {
            spec.name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
            for spec in self.inputs(config)
        }

    def example_inputs(
        self, config: Config, lengths: Mapping[str, int], *, seed: int = 0
    ) -> FlatInputs:
        """Seeded, plausible inputs; `lengths` gives the length of every dynamic axis."""
        import numpy as np

        rng = np.random.default_rng(seed)
        return {
            spec.name: np.ascontiguousarray(self._example(spec, config, lengths, rng))
            for spec in self.inputs(config)
        }

    def _example(
        self,
        spec: TensorSpec,
        config: Config,
        lengths: Mapping[str, int],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.generic]:
        import numpy as np

        shape = concrete_shape(spec, lengths)
        if spec.name == self.timestep:
            low, high = self.timestep_range
            return rng.uniform(low, high, shape).astype(np.float32)
        return rng.standard_normal(shape, dtype=np.float32).astype(np.dtype(spec.dtype))

    def nest(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """Flat dotted names as the keyword arguments of `forward`."""
        nested: dict[str, Any] = {}
        for name, value in flat.items():
            *path, leaf = name.split(".")
            place = nested
            for part in path:
                place = place.setdefault(part, {})
            place[leaf] = value
        return nested

    def module_class(self) -> Any:
        """The diffusers class; imports only its own module."""
        return getattr(importlib.import_module(self.module), self.class_name)

    def build(self, config: Config) -> Any:
        """The torch module of `config`, in evaluation mode, as diffusers initialises it.

        Raises:
            SegQuantError: the configuration describes no such module.
        """
        kind = self.module_class()
        with self.described():
            return kind.from_config(dict(config)).eval()

    @contextmanager
    def described(self) -> Iterator[None]:
        """Take what a value in `config.json` that nobody expects leads to for what it is.

        Raises:
            SegQuantError: in the place of any exception inside the block that is no SegQuantError.
        """
        try:
            yield
        except (SegQuantError, MemoryError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
            raise SegQuantError(
                f"config.json does not describe a {self.class_name} that works: {reason}",
                hint="fetch config.json again, together with its weights; if diffusers runs this "
                "model, please report it with its config.json",
            ) from error


def concrete_shape(spec: TensorSpec, lengths: Mapping[str, int]) -> tuple[int, ...]:
    """`spec.shape` with every axis name replaced by its length."""
    return tuple(lengths[axis] if isinstance(axis, str) else axis for axis in spec.shape)
