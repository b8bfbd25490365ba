"""The drawings' U-Net as a start of SDXL's: what has a counterpart is taken over.

SD 1.5's U-Net read the last states of one text encoder, y = LN(last layer(x)); this one reads
x itself. The maps of keys and values begin as W A, where A is the least-squares map x -> y over
all slots of all captions. What reads the second encoder begins at zero, and so does what the
embedding of pooled text and sizes adds. Inside that embedding pooled text begins at unit variance
and sizes at zero: sizes say nothing here, and as noise larger than pooled text they make training
switch the whole embedding off.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPModel

from ..drawings import models as drawings
from ..drawings.captions import all_captions
from ..drawings.tokenizer import Tokenizer
from ..drawings.world import pairs
from .encoders import two_layers
from .models import G_WIDTH, L_WIDTH

SKIPPED = 7  # every such pair's captions give states enough
RIDGE = 1e-4  # of the mean square of the states
POOLED_LENGTH = 7.0  # of captions' pooled states


@torch.no_grad()
def last_from_penultimate(clip: CLIPModel) -> Tensor:
    """A (96, 96): final states of L from those before its last layer, y = A x."""
    captions = [text for pair in pairs("train")[::SKIPPED] for text in all_captions(pair)]
    ids = Tokenizer()(captions)
    states = two_layers(clip.text_model, drawings.compact(ids))
    before, after = (each.flatten(0, 1).double() for each in states)
    gram = before.T @ before
    damping = RIDGE * gram.diagonal().mean() * torch.eye(L_WIDTH)
    return torch.linalg.solve(gram + damping, before.T @ after).T.float()


@torch.no_grad()
def adopt(model: UNet2DConditionModel, drawn: UNet2DConditionModel, clip: CLIPModel) -> None:
    """Put the weights of the drawings' U-Net into SDXL's, in place."""
    known, states = drawn.state_dict(), model.state_dict()
    last = last_from_penultimate(clip)
    for name, value in states.items():
        if name.startswith("add_embedding."):
            _adopt_embedding(name, value)
        elif name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            value[:, :L_WIDTH] = known[name] @ last
            value[:, L_WIDTH:] = 0
        else:
            value.copy_(known[name].reshape(value.shape))  # 1 x 1 convolutions are linear here


def _adopt_embedding(name: str, value: Tensor) -> None:
    """Fill one tensor of the embedding of pooled text and sizes, in place."""
    value.zero_()
    if name.endswith("linear_1.weight"):
        value[:, :G_WIDTH].normal_(std=1 / POOLED_LENGTH)
