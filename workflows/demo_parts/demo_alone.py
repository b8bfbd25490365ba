"""The demonstration without ComfyUI: the same `projection/` code, diffusers for the rest."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from image_to_prompt.projection import Projection, apply_strength, condition
from image_to_prompt.projection.closed_form.inverse import PAPER_CUTOFF
from image_to_prompt.tests.miniature import pipeline
from image_to_prompt.tests.miniature.experiments.rows import NORM
from image_to_prompt.tests.miniature.sampling import Miniature, noise_of

from .demo_assets import Reference
from .miniature import Weights, from_file, to_pil

GUIDANCE = 3.0
DIFFERENCES = """Without ComfyUI: the same code of projection/ makes the conditioning. Different are
  - the miniature in its own width, where ComfyUI gets it widened to SD 1.5's shapes;
  - encoders in float32, where ComfyUI holds their weights in float16;
  - sampling by diffusers' Euler steps in place of KSampler, from the same noise.
Your own checkpoint needs ComfyUI."""


def maker(source: Weights, out: Path, steps: int) -> Callable[[Reference, tuple], Path]:
    """A function that makes one picture of the grid and returns its file."""
    mini = Miniature.load(source.folder)
    pipe = pipeline.pipeline(source.folder)
    projection = Projection.from_text_projection(
        mini.clip.text_projection.weight,
        mini.clip.visual_projection.weight,
        cutoff=PAPER_CUTOFF,
        norm=NORM,
    )
    numbers = itertools.count(1)
    out.mkdir(parents=True, exist_ok=True)

    def make(reference: Reference, job: tuple) -> Path:
        _, seed, text, strength = job
        picture = from_file(reference.path)
        context = prompt(mini, projection, picture, text or "", strength)
        null = mini.states([""])[0]
        image = pipeline.generate(pipe, context, null, noise_of(seed, 1), steps, GUIDANCE)[0]
        path = out / f"alone_{next(numbers):05}.png"
        to_pil(image).save(path)
        return path

    return make


def prompt(
    mini: Miniature, projection: Projection, picture: Tensor, text: str, strength: float
) -> Tensor:
    """Conditioning (1, 77, D) of one picture (1, 3, H, W) in [0, 1] and a text."""
    states, ends = mini.states([text])
    with torch.no_grad():
        embedding = projection.apply(mini.image_embeds(picture))
        conditioning = condition(states, ends.tolist(), embedding)
        return apply_strength(conditioning, mini.states([""])[0], strength)
