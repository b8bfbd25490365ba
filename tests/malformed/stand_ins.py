"""Small stand-ins for what core's loaders give, shaped as the real objects where nodes look."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from image_to_prompt.tests.fixtures.builders import normal

SOS, EOS, SIZE, VISION = 49406, 49407, 32, 48


class Clip:
    """A text encoder: one token a word, states from the token ids.

    parts: the keys that `tokenize` gives, 'l' alone for SD 1.x. width: of the text states.
    """

    def __init__(self, parts=("l",), width=SIZE, end=EOS, length=77, states_width=None, scale=1.0):
        self.parts, self.end, self.length, self.scale = parts, end, length, scale
        self.states_width = states_width or width
        weight = torch.zeros(4, width)
        embeddings = SimpleNamespace(weight=weight)
        transformer = SimpleNamespace(get_input_embeddings=lambda: embeddings)
        self.cond_stage_model = SimpleNamespace(clip_l=SimpleNamespace(transformer=transformer))

    def tokenize(self, text: str) -> dict[str, list[list[tuple[int, float]]]]:
        ids = [SOS, *(100 + len(word) for word in text.split())]
        ids += [self.end] * (77 - len(ids))
        return {part: [[(token, 1.0) for token in ids]] for part in self.parts}

    def encode_from_tokens_scheduled(self, tokens: dict) -> list:
        table = normal(1000, self.states_width, seed=4)
        ids = [token % 1000 for token, _ in tokens["l"][0]][: self.length]
        states = self.scale * table[ids][None]
        return [[states, {"pooled_output": states[:, 0]}]]


class ClipVision:
    """A vision model: embeddings are a fixed function of the picture's mean colours."""

    def __init__(self, joint=SIZE, embeds: Tensor | None = None, has_projection=True):
        weight = torch.zeros(joint, VISION)
        projection = SimpleNamespace(weight=weight) if has_projection else torch.nn.Identity()
        self.model = SimpleNamespace(visual_projection=projection)
        self.joint, self.embeds, self.calls = joint, embeds, 0

    def encode_image(self, image: Tensor, crop: bool = True) -> SimpleNamespace:
        colours = image.mean(dim=(1, 2))
        embeds = colours @ normal(3, self.joint, seed=5)
        if self.embeds is not None:
            embeds = self.embeds[self.calls % len(self.embeds)][None]
        self.calls += 1
        return SimpleNamespace(image_embeds=embeds)
