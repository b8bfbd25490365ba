"""What every workflow has: the loaders on the left, the sampler on the right."""

from __future__ import annotations

from typing import Any

from image_to_prompt.workflows.authoring.format.graph import Graph, Node, Output

# Columns of the page, from left to right.
NOTE, LOAD, PROMPT, REGION, SAMPLE = -440, 0, 400, 860, 860
REGIONS_WIDTH, SAMPLE_WIDTH = 390, 360
TRAIN, TRAINED_PROMPT, TRAINED_SAMPLE = 400, 860, 1320  # where something is trained


class Sd1(Graph):
    """The part that every workflow has: three files in, one picture out."""

    def __init__(self, note: str, projection: str | None = None) -> None:
        super().__init__()
        self.models(note)
        file = {"file": projection} if projection else {}
        self.projection = self.add("LoadProjection", (LOAD, 260), **file)

    def models(self, note: str, **checkpoint: object) -> None:
        """The note, the checkpoint and the vision model."""
        self.add("MarkdownNote", (NOTE, 0), **{"": note})
        self.checkpoint = self.add("CheckpointLoaderSimple", (LOAD, 0), **checkpoint)
        self.clip_vision = self.add("CLIPVisionLoader", (LOAD, 150))

    def picture(self, row: int) -> Node:
        return self.add("LoadImage", (LOAD, 580 + 370 * row))

    def embed(
        self,
        image: Node,
        row: int = 0,
        x: int = PROMPT,
        projection: Output | None = None,
        **widgets: object,
    ) -> Node:
        return self.add(
            "ImageToPromptEmbed",
            (x, 420 * row),
            projection=projection or self.projection.out(),
            clip=self.checkpoint.out(1),
            clip_vision=self.clip_vision.out(),
            image=image.out(),
            **widgets,
        )

    def empty_text(self, row: int = 1, x: int = PROMPT) -> Node:
        return self.add("CLIPTextEncode", (x, 420 * row), clip=self.checkpoint.out(1))

    def train(self, name: str, images: Node, height: int, **widgets: object) -> Node:
        """A training node with its curve below."""
        trained = self.add(
            name,
            (TRAIN, 0),
            model=self.checkpoint.out(0),
            vae=self.checkpoint.out(2),
            clip=self.checkpoint.out(1),
            clip_vision=self.clip_vision.out(),
            projection=self.projection.out(),
            image=images.out(),
            **widgets,
        )
        self.add("PreviewImage", (TRAIN, height), images=trained.out(2))
        return trained

    def finish_trained(self, trained: Node, picture: Node, name: str, **widgets: Any) -> Sd1:
        """A picture through what was trained."""
        x = TRAINED_PROMPT
        prompt = self.embed(picture, x=x, projection=trained.out(1), **widgets)
        negative = self.empty_text(x=x)
        return self.finish(prompt, negative, name, TRAINED_SAMPLE, model=trained.out(0))

    def finish(
        self,
        positive: Node,
        negative: Node,
        name: str,
        x: int = SAMPLE,
        width: int = 512,
        model: Output | None = None,
        height: int | None = None,
    ) -> Sd1:
        """Sample, decode and save, in columns from `x` on."""
        size = {"width": width} if height is None else {"width": width, "height": height}
        latent = self.add("EmptyLatentImage", (x, 320), **size)
        sampled = self.add(
            "KSampler",
            (x, 0),
            model=model or self.checkpoint.out(0),
            positive=positive.out(),
            negative=negative.out(),
            latent_image=latent.out(),
        )
        decoded = self.add("VAEDecode", (x, 490), samples=sampled.out(), vae=self.checkpoint.out(2))
        self.add("SaveImage", (x + SAMPLE_WIDTH, 0), images=decoded.out(), filename_prefix=name)
        return self
