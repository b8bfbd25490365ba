"""API graphs for the soak: prompts of many kinds, refinements, and what the host is to refuse.

Every graph has values of its own, from its number, so that nothing of it is cached but the models.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from image_to_prompt.projection import REFINE

CLIP_FILE, FOLDER, PICTURES = "soak-clip.safetensors", "soak", 6
METHODS = ("pseudo-inverse", "ridge", "transpose")
Link = list


@dataclass
class Graph:
    """Nodes under their numbers, as the API takes them."""

    nodes: dict[str, dict] = field(default_factory=dict)

    def add(self, kind: str, **inputs: Any) -> Link:
        """A node; the link to its first output."""
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": kind, "inputs": inputs}
        return [number, 0]


def output(link: Link, index: int) -> Link:
    return [link[0], index]


class Prompts:
    """Makes the graphs. folder_loader: the class of core's folder loader in this host."""

    def __init__(self, folder_loader: str) -> None:
        self.folder_loader = folder_loader
        self.saved: list[str] = []  # projections in models/projections

    def prompt(self, number: int) -> dict:
        """A prompt that samples a picture, or fails as it should."""
        kinds = (self.single, self.batch, self.list, self.files, self.single, self.list, self.error)
        return kinds[number % len(kinds)](number)

    def single(self, number: int) -> dict:
        graph = Graph()
        models = graph.add("SoakModels")
        self.sample(graph, models, self.embed(graph, models, number, self.picture(graph, number)))
        return graph.nodes

    def batch(self, number: int) -> dict:
        """Two pictures as a batch."""
        graph = Graph()
        models = graph.add("SoakModels")
        pictures = [self.picture(graph, number + n) for n in range(2)]
        both = graph.add("ImageBatch", image1=pictures[0], image2=pictures[1])
        images = ("one prompt from all", "one prompt per image")[number % 2]
        own = {"images": images, "image_weights": f"1, {0.1 + number / 1000:.3f}"}
        self.sample(graph, models, self.embed(graph, models, number, both, **own))
        return graph.nodes

    def list(self, number: int) -> dict:
        """A folder's pictures, of several sizes, as a list."""
        graph = Graph()
        models = graph.add("SoakModels")
        pictures = self.folder(graph)
        images = ("one prompt from all", "one prompt per image")[number % 2]
        self.sample(graph, models, self.embed(graph, models, number, pictures, images=images))
        return graph.nodes

    def files(self, number: int) -> dict:
        """A projection that is made anew or was saved, and is saved."""
        graph = Graph()
        models = graph.add("SoakModels")
        own = {"file": CLIP_FILE, "method": METHODS[number % 3], "cutoff": 0.2 + number % 97 / 1000}
        if number % 2 and self.saved:
            own["file"] = self.saved[number % len(self.saved)]
        elif number % 3 == 0:
            own |= {"clip": output(models, 1), "gap": 0.5}
        projection = graph.add("LoadProjection", **own)
        graph.add("SaveProjection", projection=projection, filename_prefix="soak/projection")
        picture = self.picture(graph, number)
        prompt = self.embed(graph, models, number, picture, projection=projection)
        self.sample(graph, models, prompt)
        return graph.nodes

    def error(self, number: int) -> dict:
        """What the pack refuses while the prompt runs."""
        graph = Graph()
        models = graph.add("SoakModels")
        picture = self.picture(graph, number)
        if number % 2:
            own = {"image_weights": "one, two", "images": "one prompt from all"}
            self.sample(graph, models, self.embed(graph, models, number, picture, **own))
        else:
            projection = self.projection(graph)
            graph.add("SaveProjection", projection=projection, filename_prefix=f"../{number}")
        return graph.nodes

    def refinement(self, number: int) -> dict:
        """A short refinement, saved and sampled with."""
        graph = Graph()
        models = graph.add("SoakModels")
        refined = graph.add(
            "OnlineRefine",
            model=models,
            vae=output(models, 2),
            clip=output(models, 1),
            clip_vision=output(models, 3),
            projection=self.projection(graph),
            image=self.picture(graph, number),
            steps=1 + number % 2,
            preset=list(REFINE)[number % len(REFINE)],
            learning_rate=0.0,
            seed=number,
            size=64,
            memory=("fast", "low")[number % 2],
            preview_every=1,
            keep_texts=("", "in the snow")[number % 2],
        )
        projection = output(refined, 1)
        graph.add("SaveProjection", projection=projection, filename_prefix="soak/refined")
        model = refined
        if number % 3 == 0:
            model = graph.add("ApplyProjection", model=models, projection=projection, strength=0.7)
        picture = self.picture(graph, number)
        prompt = self.embed(graph, models, number, picture, projection=projection)
        self.sample(graph, models, prompt, model)
        return graph.nodes

    def long_refinement(self, number: int) -> dict:
        """A refinement of more steps, to be interrupted."""
        graph = self.refinement(number)
        for node in graph.values():
            if node["class_type"] == "OnlineRefine":
                node["inputs"]["steps"] = 10
        return graph

    # --- parts ------------------------------------------------------------------------------

    def picture(self, graph: Graph, number: int) -> Link:
        return graph.add("LoadImage", image=f"soak{number % PICTURES}.png")

    def folder(self, graph: Graph) -> Link:
        if self.folder_loader == "LoadImageDataSetFromFolder":
            return graph.add(self.folder_loader, folder=FOLDER)
        return graph.add(self.folder_loader, folder=FOLDER, resize_method="Stretch")

    def projection(self, graph: Graph) -> Link:
        return graph.add("LoadProjection", file=CLIP_FILE, method="pseudo-inverse", cutoff=0.0)

    def embed(self, graph: Graph, models: Link, number: int, image: Link, **own: Any) -> Link:
        given = {
            "clip": output(models, 1),
            "clip_vision": output(models, 3),
            "image": image,
            "text": ("", "in the snow", f"number {number}, by night")[number % 3],
            "text_weight": 0.6,
            "strength": 1 + number / 10000,
            "images": "one prompt per image",
            "crop": ("center", "none")[number % 2],
            "blend": "add",
            "image_weights": "",
        } | own
        given.setdefault("projection", None)
        if given["projection"] is None:
            given["projection"] = self.projection(graph)
        return graph.add("ImageToPromptEmbed", **given)

    def sample(self, graph: Graph, models: Link, positive: Link, model: Link | None = None) -> None:
        pixels = graph.add(
            "VAEDecode",
            samples=graph.add(
                "KSampler",
                model=model or models,
                positive=positive,
                negative=graph.add("CLIPTextEncode", clip=output(models, 1), text=""),
                latent_image=graph.add("EmptyLatentImage", width=64, height=64, batch_size=1),
                seed=1,
                steps=1,
                cfg=2.0,
                sampler_name="euler",
                scheduler="normal",
                denoise=1.0,
            ),
            vae=output(models, 2),
        )
        graph.add("PreviewImage", images=pixels)
