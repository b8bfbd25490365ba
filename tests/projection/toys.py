"""Small stand-ins for what training needs: a denoiser with real cross-attention, pictures.

Random weights: they prove wiring and arithmetic, not that anything learns something useful.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from image_to_prompt.projection import (
    EncodedPrompts,
    LoRAConfig,
    NoiseConfig,
    ResidualConfig,
    TrainingConfig,
    TrainingImages,
    TransformersTower,
)
from image_to_prompt.tests.fixtures import builders

WIDTH = 32  # of text states and joint space, as `builders.small_projection`
SMALL, LARGE = 24, 40  # outputs of the toy's two cross-attentions
BLOCKS = {
    "input_blocks.1.1.transformer_blocks.0.attn2": SMALL,
    "middle_block.1.transformer_blocks.0.attn2": LARGE,
}


class ToyDenoiser:
    """Two cross-attentions from pixels to the context, and nothing else; deterministic."""

    def __init__(self, prediction_type: str = "epsilon") -> None:
        self.prediction_type = prediction_type
        self.alphas_cumprod = torch.linspace(0.999, 0.005, 1000)
        self.cross_kv_shapes = {
            f"{block}.{leaf}": (size, WIDTH)
            for block, size in BLOCKS.items()
            for leaf in ("to_k", "to_v")
        }
        self.linear_shapes = self.cross_kv_shapes
        self.weights = {
            name: builders.normal(*shape, seed=30 + i) / WIDTH**0.5
            for i, (name, shape) in enumerate(self.cross_kv_shapes.items())
        }
        self.query = {b: builders.normal(n, 4, seed=50) for b, n in BLOCKS.items()}
        self.out = {b: builders.normal(4, n, seed=60) / n for b, n in BLOCKS.items()}
        self.seen: list[int] = []  # pictures of each call

    def predict(self, noisy, timesteps, context, deltas):
        unknown = set(deltas) - set(self.cross_kv_shapes)
        assert not unknown
        self.seen.append(len(noisy))
        x = noisy.flatten(2).transpose(1, 2)  # (B, h w, 4)
        for block in BLOCKS:
            gained = {}
            for leaf in ("to_k", "to_v"):
                name = f"{block}.{leaf}"
                gained[leaf] = context @ self.weights[name].T
                if name in deltas:
                    gained[leaf] = gained[leaf] + deltas[name](context)
            scores = (x @ self.query[block].T) @ gained["to_k"].transpose(1, 2)
            x = x + scores.div(10).softmax(-1) @ gained["to_v"] @ self.out[block].T
        x = x * (1 + timesteps[:, None, None] / 1000)
        return x.transpose(1, 2).unflatten(2, noisy.shape[2:])


def pictures(count: int = 3, seed: int = 70, size: tuple[int, int] = (4, 4)) -> TrainingImages:
    latents = tuple(builders.normal(4, *size, seed=seed + i) for i in range(count))
    return TrainingImages(latents, builders.normal(count, WIDTH, seed=seed + 100))


def null() -> torch.Tensor:
    return builders.normal(1, 77, WIDTH, seed=80)


def tiny_clip():
    """A random transformers CLIPModel with 2 vision layers of width 48, 3 heads; joint width 32."""
    from transformers import CLIPConfig, CLIPModel

    common = {"num_hidden_layers": 2, "intermediate_size": 64, "hidden_act": "quick_gelu"}
    text = common | {
        "hidden_size": WIDTH,
        "num_attention_heads": 4,
        "vocab_size": 10,
        "bos_token_id": 8,
        "eos_token_id": 9,
        "pad_token_id": 9,
    }
    vision = common | {
        "hidden_size": 48,
        "num_attention_heads": 3,
        "patch_size": 7,
        "image_size": 28,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIPModel(config).eval().requires_grad_(False)
    for index, value in enumerate(clip.parameters()):  # biases and norms start at 0 and 1
        value.add_(builders.normal(*value.shape, seed=index) * 0.05)
    return clip


def tower():
    """The vision encoder of `tiny_clip` in parts."""
    return TransformersTower(tiny_clip())


def pixels(count: int = 3) -> torch.Tensor:
    return builders.normal(count, 3, 28, 28, seed=90)


def texts(count: int = 5, seed: int = 90) -> EncodedPrompts:
    """Random text states of `count` texts, ends at different places."""
    eos = tuple(1 + place % 7 for place in range(count))
    return EncodedPrompts(builders.normal(count, 77, WIDTH, seed=seed), eos)


def changed(config: TrainingConfig, **fields) -> TrainingConfig:
    """The configuration with other fields, those of its noise and preservation parts included."""
    parts = {}
    for name in ("noise", "preservation"):
        part = getattr(config, name)
        own = {key: fields.pop(key) for key in list(fields) if hasattr(part, key)}
        parts[name] = replace(part, **own)
    return replace(config, **parts, **fields)


def gradients(trainer, batch, *regularizers):
    """The trainer's loss of a batch as it stands, and its gradients."""
    parameters = trainer.parameters
    return trainer.loss.gradients(
        parameters.initial, parameters.current, parameters.trained, batch, *regularizers
    )


def both(learning_rate: float) -> TrainingConfig:
    """Residual and cross-attention, two time steps a step."""
    noise = NoiseConfig(timesteps_per_image=2)
    return TrainingConfig(learning_rate, ResidualConfig(), LoRAConfig(), noise=noise)
