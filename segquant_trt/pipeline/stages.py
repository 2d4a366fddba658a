"""The stages in order: what each reads, writes and depends on."""

from __future__ import annotations

from segquant_trt.models import identity
from segquant_trt.pipeline import bodies, planning
from segquant_trt.records.stage import Stage

_SAMPLING = ("steps", "guidance_scale", "height", "width", "scheduler", "seed")
_PLANNING = (
    *("target", "preset", "objective", "max_latency", "target_sqnr", "cost_scale"),
    *("weight_bits", "weight_only", "weight_block", "weight_scales", "quantize_all", "keep_float"),
    *("freeze_schedule", "hoist_prompt"),
)
_EXPORTED = ("model.onnx", "model.yaml")
_LOCATION = "model.location.yaml"
_FLOAT = (*_EXPORTED, _LOCATION, "excerpt.safetensors")

STAGES: tuple[Stage, ...] = (
    Stage(
        name="export",
        inputs=(),
        outputs=(*_EXPORTED, _LOCATION),
        options=("model", "subfolder", "revision"),
        body=bodies.export_stage,
        identity=identity.of_checkpoint,
    ),
    Stage(
        name="calibrate",
        inputs=(*_EXPORTED, _LOCATION),
        outputs=("excerpt.safetensors", "calibration.safetensors", "recordings"),
        options=(*_SAMPLING, "num_samples", "device", "dtype"),
        body=bodies.calibrate_stage,
        identity=identity.of_calibration,
        further=("prompts", "inputs", "threads"),
    ),
    Stage(
        name="analyze",
        inputs=_EXPORTED,
        outputs=("facts.yaml",),
        options=("timestep", "prompt_inputs"),
        body=bodies.analyze_stage,
    ),
    Stage(
        name="score",
        inputs=(
            *_EXPORTED,
            _LOCATION,
            "facts.yaml",
            "calibration.safetensors",
            "excerpt.safetensors",
        ),
        outputs=("scores.safetensors",),
        options=("weight_bits", "weight_only", "weight_block", "range_method"),
        body=bodies.score_stage,
        further=("threads",),
    ),
    Stage(
        name="trial",
        inputs=(*_FLOAT, "facts.yaml", "scores.safetensors"),
        outputs=("trials.yaml",),
        options=(*_PLANNING, *_SAMPLING, "num_samples", "device", "dtype", "trials"),
        body=planning.trial_stage,
        identity=planning.of_trials,
        further=("rules", "costs", "prompts", "inputs", "threads"),
    ),
    Stage(
        name="plan",
        inputs=("facts.yaml", "scores.safetensors"),
        outputs=("plan.yaml",),
        options=_PLANNING,
        body=planning.plan_stage,
        identity=planning.of_plan,
        further=("rules", "costs", "trials"),
        editable=True,
    ),
    Stage(
        name="rewrite",
        inputs=(*_EXPORTED, _LOCATION, "facts.yaml", "plan.yaml", "scores.safetensors"),
        outputs=(
            "quantized.onnx",
            "quantized.weights",
            "quantized.fallback.onnx",
            "quantized.prompt.onnx",
        ),
        options=("freeze_schedule", "fallback", "hoist_prompt"),
        body=bodies.rewrite_stage,
        identity=identity.of_freezing,
        further=("scheduler", "height", "width", "device", "dtype"),
    ),
    Stage(
        name="build",
        inputs=("quantized.onnx", "quantized.weights", "facts.yaml", "plan.yaml", "model.yaml"),
        outputs=("bundle",),
        options=(),
        body=bodies.build_stage,
        identity=identity.of_runtimes,
    ),
    Stage(
        name="verify",
        inputs=(*_FLOAT, "facts.yaml", "plan.yaml", "quantized.onnx", "bundle"),
        outputs=("quality.json", "images.safetensors"),
        options=(*_SAMPLING, "num_samples", "device", "dtype", "full"),
        body=bodies.verify_stage,
        identity=identity.of_verification,
        further=("prompts", "inputs", "verify_inputs", "threads"),
    ),
    Stage(
        name="bench",
        inputs=(*_FLOAT, "bundle"),
        outputs=("benchmark.json",),
        options=("threads",),
        body=bodies.bench_stage,
        identity=identity.of_runtimes,
    ),
    Stage(
        name="report",
        inputs=(
            "model.yaml",
            "facts.yaml",
            "plan.yaml",
            "bundle",
            "quality.json",
            "benchmark.json",
        ),
        outputs=("report.html",),
        options=(),
        body=bodies.report_stage,
    ),
)
PRODUCERS = {name: stage.name for stage in STAGES for name in stage.outputs}
