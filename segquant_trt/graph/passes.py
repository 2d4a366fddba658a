"""A graph pass says what it needs and proves what it did."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import onnx


class Pass(ABC):
    """An edit of a graph, named by its effect.

    `requires` and `ensures` are mandatory; both raise SegQuantError naming the culprit.
    """

    @abstractmethod
    def requires(self, model: onnx.ModelProto) -> None:
        """Check that the graph is one that `apply` can treat."""

    @abstractmethod
    def apply(self, model: onnx.ModelProto) -> None:
        """Edit the graph in place. Initializer data is not touched."""

    @abstractmethod
    def ensures(self, before: onnx.ModelProto, after: onnx.ModelProto) -> None:
        """Check the edited graph against the original one."""

    @final
    def run(self, model: onnx.ModelProto) -> None:
        """Check, edit in place, check again."""
        self.requires(model)
        before = onnx.ModelProto()
        before.CopyFrom(model)
        self.apply(model)
        self.ensures(before, model)
