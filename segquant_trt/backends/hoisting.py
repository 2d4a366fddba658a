"""A graph whose prompt-constant values another graph computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from segquant_trt.backends.base import Array, Runner
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.frozen_stamp import frozen_steps
from segquant_trt.graph.hoisted_stamp import hoisted_prompt
from segquant_trt.records import FrozenSteps, HoistedPrompt, TensorSpec
from segquant_trt.records.step_rows import step_indices

Values = Mapping[str, Array]


class PromptGraph:
    """The second graph: what it computes for a prompt, and how the main graph is fed with it.

    Args:
        hoisted: what it computes.
        frozen: the steps of the values that there is a row per step of.
        runner: of the second graph.
    """

    def __init__(self, hoisted: HoistedPrompt, frozen: FrozenSteps | None, runner: Runner) -> None:
        self.hoisted = hoisted
        self._frozen = frozen
        self._runner = runner

    def values(self, inputs: Mapping[str, Array]) -> Values:
        """Everything that is the same in all calls with these prompt inputs.

        Values by step are [B, T, ...]; the rest is as the main graph reads it.
        """
        hoisted = self.hoisted
        feeds = {name: inputs[name] for name in hoisted.inputs}
        if self._frozen is None or hoisted.row_input is None:
            return self._runner.run(feeds, hoisted.values)
        times = np.asarray(inputs[self._frozen.timestep])
        steps = np.array(self._frozen.timesteps).astype(times.dtype)
        feeds[self._frozen.timestep] = np.tile(steps, len(times))
        feeds[hoisted.row_input] = np.repeat(np.arange(len(times)), len(steps))
        found = self._runner.run(feeds, hoisted.values)
        for name in hoisted.by_step:
            found[name] = found[name].reshape(len(times), len(steps), *found[name].shape[1:])
        return found

    def feeds(
        self, inputs: Mapping[str, Array], values: Values, wanted: Sequence[TensorSpec]
    ) -> dict[str, Array]:
        """Inputs of the main graph for one call; `wanted` are those that it has."""
        given = {**inputs, **values}
        if self._frozen is not None and self.hoisted.by_step:
            rows = step_indices(self._frozen.timesteps, inputs[self._frozen.timestep])
            samples = np.arange(len(rows))
            given |= {name: values[name][samples, rows] for name in self.hoisted.by_step}
        return {spec.name: given[spec.name] for spec in wanted}


class WholeRunner:
    """Both graphs at every call: it keeps nothing between calls.

    Args:
        main: the graph that lacks the hoisted values.
        prompt: computes them.
    """

    def __init__(self, main: Runner, prompt: PromptGraph) -> None:
        self._main = main
        self._prompt = prompt

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The main graph's inputs, hoisted values among them."""
        return self._main.inputs

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Outputs by name; all of them unless `outputs` says which."""
        return self._main.run(self.feeds(inputs), outputs)

    def feeds(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the main graph is fed with for the inputs of the whole."""
        return self._prompt.feeds(inputs, self._prompt.values(inputs), self._main.inputs)


def open_whole(main: Path, prompt: Path, opened: Callable[[Path], Runner]) -> Runner:
    """A rewritten graph that takes the denoiser's inputs, whether values were hoisted or not.

    Args:
        main: the graph.
        prompt: the graph of the values that were hoisted out of it, where any were.
        opened: opens a graph.
    """
    model = load_graph(main)
    hoisted = hoisted_prompt(model)
    runner = opened(main)
    if hoisted is None:
        return runner
    return WholeRunner(runner, PromptGraph(hoisted, frozen_steps(model), opened(prompt)))
