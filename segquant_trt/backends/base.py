"""What a runtime offers: a placement, sessions, and the proof that sites run in integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from segquant_trt.backends.placement import Placement
from segquant_trt.records import Target, TensorSpec

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[np.generic]
_NO_PRODUCT = "no coded weight in the graph"


class Runner(Protocol):
    """A loaded graph. `run` may be called from several threads at once."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in order."""

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Outputs by name; all of them unless `outputs` says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteProof:
    """How a planned site runs: `kernel` is the runtime's own word for what executes it."""

    integer: bool
    kernel: str


def proof_of(kernels: Sequence[str | None], is_integer: Callable[[str], bool]) -> SiteProof:
    """The proof of a site from what executes each of its products; None: nothing does.

    All of them must be integer kernels.
    """
    found = [kernel or "absent from what the runtime executes" for kernel in kernels]
    integer = bool(kernels) and all(kernel is not None and is_integer(kernel) for kernel in kernels)
    return SiteProof(integer=integer, kernel=", ".join(dict.fromkeys(found)) or _NO_PRODUCT)


class Backend(Protocol):
    """A runtime, or a builder and what stands in for its runtime."""

    @property
    def stand_in(self) -> str | None:
        """What runs graphs here instead of the target, which needs a GPU; None: the target."""

    @property
    def target(self) -> Target:
        """The plan's name for this runtime."""

    @property
    def placement(self) -> Placement:
        """Where it wants its Q/DQ pairs."""

    def float_session(
        self, model: onnx.ModelProto | bytes, folder: Path, *, threads: int | None = None
    ) -> Runner:
        """Open a float graph whose external data is in `folder`."""

    def open(self, model_path: Path, *, threads: int | None = None) -> Runner:
        """Open a rewritten graph; its data is beside it."""

    def integer_sites(
        self, model_path: Path, sites: Sequence[str], *, example: Mapping[str, Array]
    ) -> dict[str, SiteProof]:
        """For each planned site, what the graph that really executes does with it.

        `example`: inputs of any allowed size; some runtimes choose kernels at the first call.
        """

    def versions(self) -> dict[str, str]:
        """Versions of the packages that decide the numbers."""
