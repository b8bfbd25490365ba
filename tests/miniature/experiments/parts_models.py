"""The narrow models with masks on CLIP's attention and prompts on areas of the canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor, nn

from image_to_prompt.projection import (
    PICTURES_SHARE,
    CaptionStatistics,
    Centred,
    Projection,
    assemble,
    encode_pictures,
    picture_direction,
)
from image_to_prompt.projection.integrations.transformers_clip import TransformersTower
from image_to_prompt.projection.regions.patch_mask import key_bias, patch_weights, square_around

from ..sampling import GUIDANCE, STEPS, Miniature
from ..training.common import generator_of
from ..world.captions import write_random
from ..world.preprocess import preprocess
from ..world.scenes import combinations, render, sample
from .centred_rows import closed_projection
from .rows import NORM

PATCH, SIDE, CAPTIONS, MEAN_PICTURES = 14, 224, 200, 16


@dataclass(frozen=True)
class Bench:
    """The models and a projection, and the empty prompt's start state."""

    mini: Miniature
    projection: Projection
    sos: Tensor

    @classmethod
    def make(cls, paper: bool) -> Bench:
        mini = Miniature.load()
        closed = closed_projection(mini.clip, NORM)
        if not paper:
            triples = combinations("train")
            picked = torch.randint(len(triples), (CAPTIONS,), generator=generator_of(31, 1))
            states, ends = mini.states(write_random(triples[picked], generator_of(31, 2)))
            statistics = CaptionStatistics.of(states[torch.arange(CAPTIONS), ends])
            pictures = render(sample(MEAN_PICTURES, "train", generator_of(32, 0)))
            direction = picture_direction(mini.image_embeds(pictures))
            text = mini.clip.text_projection.weight
            form = Centred.of(text, statistics, direction, PICTURES_SHARE, 0.5)
            closed = replace(closed, centred=form)
        return cls(mini, closed, mini.states([""])[0][0, 0])

    def prompt(self, image_embeds: Tensor) -> Tensor:
        return assemble(self.sos, self.projection.apply(image_embeds))


class MaskedTower(TransformersTower):
    """The narrow vision encoder with an attention bias over keys, (N, 1 + P)."""

    bias: Tensor

    def self_attention(self, index: int, normed: Tensor) -> Tensor:
        mask = self.bias[:, None, None].expand(-1, 1, normed.shape[1], -1)
        return self.layers[index].self_attn(normed, attention_mask=mask)[0]


@torch.no_grad()
def masked_embeds(mini: Miniature, pictures: Tensor, masks: Tensor) -> Tensor:
    """Image embeddings (N, 96) of what masks (N, 64, 64) leave to attention."""
    scaled = F.interpolate(masks[:, None], (SIDE, SIDE), mode="bicubic", antialias=True)
    tower = MaskedTower(mini.clip)
    tower.bias = key_bias(patch_weights(scaled.clamp(0, 1)[:, 0], PATCH))
    return encode_pictures(tower, preprocess(pictures))


def cropped_embeds(mini: Miniature, pictures: Tensor, masks: Tensor) -> Tensor:
    """Image embeddings (N, 96) of the squares around masks."""
    parts = []
    for picture, mask in zip(pictures, masks, strict=True):
        rows, columns = square_around(mask)
        parts.append(mini.image_embeds(picture[None, :, rows, columns]))
    return torch.cat(parts)


Entry = tuple[Tensor, Tensor, slice]  # prompt (N, 77, 96), weight (h, w), columns of the latent


@torch.no_grad()
def draw_areas(mini: Miniature, entries: Sequence[Entry], noise: Tensor) -> Tensor:
    """Pictures from prompts on areas, as core's sampler averages them; the negative is empty."""
    null = mini.states([""])[0].expand(len(noise), -1, -1)
    whole = (null, torch.ones(noise.shape[-2:]), slice(0, noise.shape[-1]))
    pictures = []
    for start in range(0, len(noise), 50):
        part = slice(start, start + 50)
        solver = DPMSolverMultistepScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="trailing",
            final_sigmas_type="zero",
        )
        solver.set_timesteps(STEPS)
        latents = noise[part] * solver.init_noise_sigma
        for t in solver.timesteps:
            negative = _averaged(mini.unet, latents, t, [whole, *_negatives(entries, null)], part)
            positive = _averaged(mini.unet, latents, t, entries, part)
            guided = negative + GUIDANCE * (positive - negative)
            latents = solver.step(guided, t, latents).prev_sample
        output = mini.taesd.decode(latents * mini.latent_std).sample
        pictures.append((output / 2 + 0.5).clamp(0, 1))
    return torch.cat(pictures)


def _negatives(entries: Sequence[Entry], null: Tensor) -> list[Entry]:
    """Core gives the negative every area of the positive, with its mask and strength."""
    width = max(columns.stop for _, _, columns in entries)
    return [
        (null, weight, columns)
        for _, weight, columns in entries
        if columns.stop - columns.start < width
    ]


def _averaged(
    unet: nn.Module, latents: Tensor, t: Tensor, entries: Sequence[Entry], part: slice
) -> Tensor:
    """Predictions of prompts on their areas, averaged by weight."""
    total, weights = torch.zeros_like(latents), torch.zeros_like(latents)
    for prompt, weight, columns in entries:
        area = latents[..., columns].contiguous()
        total[..., columns] += weight * unet(area, t, prompt[part]).sample
        weights[..., columns] += weight
    return total / weights
