"""The demonstration without ComfyUI: the same `projection/` code, diffusers for the rest."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from image_to_prompt.projection import REFINE, Projection, apply_strength, condition
from image_to_prompt.tests.miniature import pipeline
from image_to_prompt.tests.miniature.drawings.bench import Bench
from image_to_prompt.tests.miniature.drawings.sampling import Miniature, noise_of
from image_to_prompt.tests.miniature.experiments.fit_common import joined as with_deltas

from .demo_assets import Job, Reference
from .miniature import Weights, from_file, to_pil

GUIDANCE = 3.0
DIFFERENCES = """Without ComfyUI: the same code of projection/ makes the conditioning. Different are
  - the miniature in its own width, where ComfyUI gets it widened to SD 1.5's shapes;
  - encoders in float32, where ComfyUI holds their weights in float16;
  - sampling by diffusers' Euler steps in place of KSampler, from the same noise.
Your own checkpoint needs ComfyUI."""


def maker(source: Weights, out: Path, settings: dict) -> Callable[[Reference, Job], Path]:
    """A function that makes one picture of the grid and returns its file."""
    mini = Miniature.load(source.folder)
    bench, pipe = Bench.of(mini), pipeline.pipeline(source.folder)
    numbers, null = itertools.count(1), mini.states([""])[0]
    out.mkdir(parents=True, exist_ok=True)

    @cache
    def refined(path: Path) -> Projection:
        preset = REFINE[next(iter(REFINE))]
        return bench.refined(bench.images(from_file(path)), preset, settings["refine_steps"])

    def make(reference: Reference, job: Job) -> Path:
        form = refined(reference.path) if job.refined else bench.closed
        picture, weight = from_file(reference.path), settings["text_weight"]
        context = prompt(mini, form, picture, job.text or "", job.strength, weight)
        change = form.cross_attention
        deltas = {} if change is None else change.deltas
        # The pipeline has a U-Net of its own, the denoiser that of the miniature.
        pipe.unet = mini.unet
        with with_deltas(bench.denoiser, deltas):
            noise = noise_of(job.seed, 1)
            image = pipeline.generate(pipe, context, null, noise, settings["steps"], GUIDANCE)[0]
        path = out / f"alone_{next(numbers):05}.png"
        to_pil(image).save(path)
        return path

    return make


def prompt(
    mini: Miniature,
    projection: Projection,
    picture: Tensor,
    text: str,
    strength: float,
    text_weight: float,
) -> Tensor:
    """Conditioning (1, 77, D) of one picture (1, 3, H, W) in [0, 1] and a text."""
    states, ends = mini.states([text])
    with torch.no_grad():
        embedding = projection.apply(mini.image_embeds(picture))
        conditioning = condition(states, ends.tolist(), embedding, text_weight)
        return apply_strength(conditioning, mini.states([""])[0], strength)
