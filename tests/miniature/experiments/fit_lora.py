"""The host's own LoRA training on the miniature: one picture, every layer of the U-Net.

As the host's "Train LoRA" node does it, with the picture's latent repeated to a batch: every
linear and convolution weight gains alpha / rank * up @ down (up random, down 0, alpha 1 and
trained too), every norm's weight and every bias a difference, AdamW at a constant rate, times
drawn evenly, the squared error of the predicted clean latents. In float32 where the host's
default is bfloat16. The prompt is the picture's closed form, in training and after.

Ratios of errors to the closed form's after 30 steps (where the figure can still be read), and
shares of edits that took (weights 0.6 and 1.2 of the text), by rate, on eight pictures that no
table uses:
    rate         pixel  size  position  colour edits  shape edits
    no training  1.00   1.00  1.00      0.88 0.88     0.75 0.75
    5e-4         0.77   0.70  0.70      0.75 0.88     0.75 0.88
    1e-3         0.43   0.31  0.33      0.88 0.88     0.75 0.88
    3e-3         0.30   0.28  0.17      0.75 0.75     0.62 0.62
    5e-3         0.28   0.27  0.15      0.62 0.88     0.62 0.75
    1e-2         0.50   0.37  0.10      0.12 0.62     0.50 0.38
    3e-2         2.40   0.16  0.16      0.00 0.00     0.00 0.12
Eight pictures cannot tell 3e-3 from 5e-3 (intervals 0.20 to 0.46 and 0.19 to 0.43).
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from image_to_prompt.projection import TrainingImages
from image_to_prompt.projection.data.batches import generator_of
from image_to_prompt.projection.diffusion.denoiser import add_noise, alpha_sigma

from ..sampling import Miniature, noise_of
from ..world.oracle import agreement, read
from ..world.scenes import Scenes, render
from .editing import changed, edited
from .fit_common import EDITS, Bench, measured

RATE = 5e-3  # the least pixel error above; the host's default is 5e-4
RANK, DRAWS = 8, 16


class Adapter(nn.Module):
    """A weight (O, ...) and what it gains: up (O, R) @ down (R, I) of alpha / R."""

    def __init__(self, weight: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.register_buffer("weight", weight)
        bound = RANK**-0.5  # of the host's Kaiming start with a = sqrt(5), over RANK inputs
        up = (torch.rand(rows, RANK, generator=generator) * 2 - 1) * bound
        self.up, self.down = nn.Parameter(up), nn.Parameter(torch.zeros(RANK, columns))
        self.alpha = nn.Parameter(torch.tensor(1.0))

    def forward(self) -> Tensor:
        """The changed weight (O, ...)."""
        gain = (self.up @ self.down).reshape(self.weight.shape)
        return self.weight + self.alpha / RANK * gain


class Shift(nn.Module):
    """A vector (O,) and what it gains, (O,)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.gain = nn.Parameter(torch.zeros_like(weight))

    def forward(self) -> Tensor:
        """The changed vector (O,)."""
        return self.weight + self.gain


class Lora(nn.Module):
    """An adapter for every parameter of a module, which itself is left as it is."""

    def __init__(self, unet: nn.Module, seed: int = 0) -> None:
        super().__init__()
        generator = generator_of(seed, 0)
        self.names = [name for name, _ in unet.named_parameters()]
        self.adapters = nn.ModuleList(
            Adapter(value.detach(), generator) if value.ndim > 1 else Shift(value.detach())
            for value in unet.parameters()
        )

    def forward(self) -> dict[str, Tensor]:
        """The changed parameters by name."""
        return {name: one() for name, one in zip(self.names, self.adapters, strict=True)}


def lora_of(
    bench: Bench, seen: TrainingImages, context: Tensor, steps: int, rate: float = RATE
) -> dict[str, Tensor]:
    """The U-Net's parameters after `steps` on N pictures with their prompts (N, 77, 96)."""
    unet, schedule = bench.mini.unet, bench.denoiser.alphas_cumprod
    lora = Lora(unet)
    optimiser = torch.optim.AdamW(lora.parameters(), lr=rate)
    every = torch.stack(tuple(seen.latents))
    for step in range(steps):
        pick = torch.randint(len(every), (DRAWS,), generator=generator_of(1, step + 1))
        latents, prompts = every[pick], context[pick]
        generator = generator_of(0, step + 1)
        noise = torch.randn(latents.shape, generator=generator)
        last = len(schedule) - 1
        times = (torch.rand(DRAWS, generator=generator) * last).round().long()
        noisy = add_noise(schedule, latents, noise, times)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        output = functional_call(unet, lora(), (noisy, times, prompts)).sample
        alpha, sigma = alpha_sigma(schedule, times)
        # The error of the clean latents is that of the noise by sigma / alpha.
        loss = (sigma / alpha * (output - noise)).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return lora()


def adapted(mini: Miniature, parameters: dict[str, Tensor]) -> Miniature:
    """The miniature with a copy of its U-Net that has other parameters."""
    unet = copy.deepcopy(mini.unet)
    unet.load_state_dict(parameters, strict=False)
    return replace(mini, unet=unet)


def row(
    bench: Bench, scenes: Scenes, steps: int, noise_seed: int, rate: float = RATE
) -> dict[str, Tensor]:
    """Measurements of each scene, trained on alone, drawn and edited with its own U-Net."""
    pictures, noise = render(scenes), noise_of(noise_seed, len(scenes))
    seen = bench.pictures(pictures)
    parts = []
    for i in range(len(scenes)):
        alone = TrainingImages(seen.latents[i : i + 1], seen.embeds[i : i + 1])
        scene, context = scenes[i : i + 1], bench.contexts(bench.closed, alone.embeds)
        mini = adapted(bench.mini, lora_of(bench, alone, context, steps, rate))
        contexts, targets = _edits(bench, alone.embeds, scene)
        both = torch.cat([context, contexts])
        drawn = mini.draw(both, noise[i : i + 1].expand(len(both), -1, -1, -1))
        found = measured(drawn[:1], pictures[i : i + 1], scene)
        parts.append(found | _taken(drawn[1:], targets))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _edits(bench: Bench, embeds: Tensor, scene: Scenes) -> tuple[Tensor, list[Scenes]]:
    """Conditions (E, 77, 96) of the EDITS of one picture (1, 96), and what they should give."""
    embedding = bench.closed.apply(embeds)
    contexts, targets = [], []
    for kind, weight in EDITS:
        texts, target = changed(scene, kind)
        contexts.append(edited(bench.mini, embedding, texts, weight))
        targets.append(target)
    return torch.cat(contexts), targets


def _taken(drawn: Tensor, targets: list[Scenes]) -> dict[str, Tensor]:
    """Whether each of the EDITS took, (1,), in its picture (E, 3, 64, 64)."""
    found = {}
    for i, ((kind, weight), target) in enumerate(zip(EDITS, targets, strict=True)):
        name = "figure_colour" if kind == "colour" else "shape"
        found[f"edit_{kind}_{weight}"] = agreement(read(drawn[i : i + 1]), target)[name]
    return found
