"""The embedder of a CLIP in a folder of transformers, made where its work is done."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError

from image_to_prompt.projection import (
    Projection,
    TransformersTower,
    encode_pictures,
    from_clip_model,
    load_file,
)
from image_to_prompt.projection.collections.embedding import BatchEmbedder
from image_to_prompt.projection.integrations.transformers_clip import image_embeds

from ..missing import require


@dataclass(frozen=True)
class Choice:
    """clip: a CLIPModel's folder. projection: a saved projection's file; None: the closed form."""

    clip: str
    projection: str | None
    batch_size: int
    device: str | None  # None: a GPU where there is one

    @property
    def on_gpu(self) -> bool:
        """Whether it encodes on a GPU of this machine."""
        return self.device != "cpu" and torch.cuda.is_available()

    def make(self) -> BatchEmbedder:
        """The embedder. Raises MissingError, ImageToPromptError, OSError."""
        transformers = require("transformers", "embedding a collection")
        device = "cuda" if self.on_gpu else "cpu"
        clip = transformers.CLIPModel.from_pretrained(self.clip).eval().to(device)
        processor = transformers.CLIPImageProcessor.from_pretrained(self.clip)
        return BatchEmbedder(
            _decoder(processor),
            _encoder(clip, self._projection(clip)),
            self._projection(clip),
            self.batch_size,
        )

    def settings(self) -> dict[str, str]:
        """What a row says of its encoder and of how it was made."""
        projection = self.loaded_projection()
        told = {
            "method": projection.method,
            "cutoff": projection.cutoff,
            "norm": projection.norm,
            "text_projection": projection.encoder.text_projection,
            "visual_projection": projection.encoder.visual_projection,
            "projection": self.projection and Path(self.projection).name,
            "batch_size": self.batch_size,
        }
        return {"encoder": projection.encoder.name, "settings": json.dumps(told, sort_keys=True)}

    def loaded_projection(self) -> Projection:
        """The projection of the CLIP in the folder, or the saved one."""
        transformers = require("transformers", "embedding a collection")
        return self._projection(transformers.CLIPModel.from_pretrained(self.clip))

    def _projection(self, clip: torch.nn.Module) -> Projection:
        return load_file(self.projection) if self.projection else from_clip_model(clip)


def _decoder(processor: Callable) -> Callable[[bytes], torch.Tensor]:
    def decode(content: bytes) -> torch.Tensor:
        try:
            with Image.open(io.BytesIO(content)) as image:
                pixels = image.convert("RGB")
        except UnidentifiedImageError as error:
            raise ValueError("no image file that can be read") from error
        except (SyntaxError, Image.DecompressionBombError) as error:  # what PIL raises, too
            raise ValueError(str(error)) from error
        return processor(images=pixels, return_tensors="pt")["pixel_values"][0]

    return decode


def _encoder(
    clip: torch.nn.Module, projection: Projection
) -> Callable[[torch.Tensor], torch.Tensor]:
    device = next(clip.parameters()).device
    tower = TransformersTower(clip)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        pixels = pixels.to(device)
        if projection.vision is None:
            return image_embeds(clip, pixels)
        return encode_pictures(tower, pixels, projection.vision)

    return encode
