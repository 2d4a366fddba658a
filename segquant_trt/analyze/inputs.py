"""Which graph inputs are the timestep and the prompt: as told, else guessed and said so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.taint import reached_from
from segquant_trt.graph.view import GraphView

_TIMESTEPS = ("timestep", "timesteps", "t", "time", "time_step", "sigma", "sigmas")
# What one prompt fixes for the whole denoising loop, as diffusers' denoisers call it.
_PROMPT_WORDS = (
    "encoder_hidden_states", "prompt", "text", "txt", "pooled", "caption", "context", "class_label",
    "guidance", "time_ids", "attention_mask", "style", "image_meta_size", "image_rotary_emb",
    "img_ids", "ip_hidden_states", "image_embeds", "clip", "micro_cond",
)  # fmt: skip
_NEVER_PROMPT = ("residual", "controlnet")


def timestep_input(view: GraphView, given: str | None, path: Path) -> tuple[str | None, str | None]:
    """The timestep input, and a remark when it was guessed.

    Raises:
        SegQuantError: `given` is no input.
    """
    if given is not None:
        _check(view, (given,), path, "--timestep")
        return given, None
    found = _by_name(view) or _by_sinusoid(view)
    if found is None:
        return None, "no input looks like the timestep; name it with --timestep"
    return found, f"'{found}' is taken for the timestep (--timestep overrides)"


def prompt_inputs(
    view: GraphView, given: Sequence[str] | None, timestep: str | None, path: Path
) -> tuple[tuple[str, ...], str | None]:
    """Inputs that stay the same while one prompt is denoised, and a remark when guessed.

    Raises:
        SegQuantError: one of `given` is no input.
    """
    if given is not None:
        _check(view, given, path, "--prompt-inputs")
        return tuple(dict.fromkeys(given)), None
    found = tuple(
        name for name in view.wiring.graph_inputs if name != timestep and _is_prompt(name)
    )
    if not found:
        return (), "no input looks like a prompt's; name them with --prompt-inputs"
    shown = ", ".join(found)
    return found, f"{shown}: taken for prompt inputs (--prompt-inputs overrides)"


def _is_prompt(name: str) -> bool:
    lowered = name.lower()
    never = any(word in lowered for word in _NEVER_PROMPT)
    return not never and any(word in lowered for word in _PROMPT_WORDS)


def _by_name(view: GraphView) -> str | None:
    lowered = {name.lower().rpartition(".")[2]: name for name in view.wiring.graph_inputs}
    return next((lowered[word] for word in _TIMESTEPS if word in lowered), None)


def _by_sinusoid(view: GraphView) -> str | None:
    """The first scalar or vector input that reaches a sine and a cosine on its own."""
    for name in view.wiring.graph_inputs:
        rank = view.shapes.rank(name)
        if rank is None or rank > 1:
            continue
        reached = reached_from(view.wiring, frozenset((name,)))
        waves = {
            node.op_type
            for node in view.wiring.nodes
            if node.op_type in ("Sin", "Cos")
            and node.output[0] in reached
            and view.dependence[node.output[0]] == {name}
        }
        if len(waves) == 2:
            return name
    return None


def _check(view: GraphView, names: Sequence[str], path: Path, flag: str) -> None:
    inputs = tuple(view.wiring.graph_inputs)
    for name in names:
        if name not in inputs:
            raise SegQuantError(
                f"{path} has no input '{name}'; its inputs are {', '.join(inputs)}",
                hint=f"pass {flag} with one of them",
            )
