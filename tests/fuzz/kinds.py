"""Kinds of generated input, as data: how one is made, and what an accepted one must have given.

A kind's `make` draws an input and returns the call that is given it, and an oracle: a function of
the call's result that names what is wrong with it, or returns None.
"""

from __future__ import annotations

import json
import ntpath
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from image_to_prompt.nodes.inputs.filename_prefix import check_prefix
from image_to_prompt.projection import (
    BLENDS,
    METHODS,
    Projection,
    Trainer,
    apply_strength,
    condition,
    content_hash,
    load_checkpoint,
    load_file,
    save_checkpoint,
    save_projection,
    spherical_mean,
)
from image_to_prompt.projection.storage.tensor_file import TensorFile, encode
from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.fuzz import hostile
from image_to_prompt.tests.projection import toys
from image_to_prompt.workflows.api_client.inputs import with_inputs
from image_to_prompt.workflows.run import load_workflow

Oracle = Callable[[Any], "str | None"]
Made = tuple[Callable[[], Any], Oracle]


@dataclass(frozen=True)
class Kind:
    """name: for the counts. share: of all inputs. make: see the module."""

    name: str
    share: float
    make: Callable[[Random, Path], Made]


def finite(result: torch.Tensor) -> str | None:
    return None if torch.isfinite(result).all() else "numbers that are not finite"


def whole(projection: Projection) -> str | None:
    """Whether an accepted projection gives prompts at all."""
    prompts = projection.apply(builders.normal(2, projection.encoder.joint_width, seed=1))
    return finite(prompts)


# --- files --------------------------------------------------------------------------------------


def _name_of_map() -> str:
    return f"cross-attention.{next(iter(toys.BLOCKS))}.to_k.matrix"


def _trained_tensors(random: Random) -> dict[str, torch.Tensor]:
    parts = {
        "bias": torch.ones(32),
        "residual.down": torch.ones(2, 32),
        "residual.up": torch.ones(32, 2),
        "residual.shift": torch.ones(32),
        "vision prompts.tokens": torch.ones(2, 3, 48),
        "vision prompts.gates": torch.ones(2, 4),
        _name_of_map(): torch.ones(8, 32),
        "matrix": hostile.tensor(random),
        "singular_values": torch.ones(32),
        "unknown": torch.ones(2),
    }
    names = random.sample(list(parts), random.randrange(4))
    return {name: parts[name] for name in names}


def saved_file(random: Random, folder: Path) -> Made:
    """A saved projection with metadata or tensors replaced, or with damaged bytes."""
    path = folder / "saved.safetensors"
    save_projection(builders.with_bias(builders.small_projection()), path)
    file = TensorFile.open(path)
    if random.random() < 0.3:
        path.write_bytes(hostile.damaged(random, path.read_bytes()))
        return lambda: load_file(path), _said_all(path)
    metadata, tensors = dict(file.metadata), file.read_all()
    for _ in range(random.randrange(1, 4)):
        key = random.choice(list(metadata))
        metadata[key] = hostile.json_text(random)
    if random.random() < 0.5:
        extra = _trained_tensors(random).items()
        tensors |= {k: t for k, t in extra if t.layout == torch.strided and not t.is_meta}
    _write(path, tensors, metadata)
    return lambda: load_file(path), _said_all(path)


def _write(path: Path, tensors: dict, metadata: dict[str, str]) -> None:
    plain = {k: t.detach() for k, t in tensors.items() if not t.is_quantized and not t.is_nested}
    plain = {k: t for k, t in plain.items() if not t.is_complex()}
    path.write_bytes(b"".join(encode(plain, metadata)))


def _said_all(path: Path) -> Oracle:
    """An accepted file holds what its projection is saved as, no more and no less."""

    def oracle(projection: Projection) -> str | None:
        again = path.with_name("again.safetensors")
        save_projection(projection, again)
        old, new = TensorFile.open(path), TensorFile.open(again)
        if old.entries.keys() != new.entries.keys() and old.metadata.get("format"):
            return f"tensors {old.entries.keys() ^ new.entries.keys()} were dropped or added"
        return whole(projection)

    return oracle


def clip_file(random: Random, folder: Path) -> Made:
    """A CLIP file of any naming with a tensor replaced, or with damaged bytes."""
    path = folder / "clip.safetensors"
    layout = random.choice(
        [builders.transformers_clip, builders.openclip_clip, builders.custom_text_clip]
    )
    tensors = dict(layout())
    if random.random() < 0.6:
        tensors[random.choice(list(tensors))] = hostile.tensor(random)
        tensors = {k: t for k, t in tensors.items() if t.layout == torch.strided and not t.is_meta}
    _write(path, tensors, {"format": "pt"})
    if random.random() < 0.4:
        path.write_bytes(hostile.damaged(random, path.read_bytes()))
    if random.random() < 0.3:
        return lambda: content_hash(path), lambda digest: None if len(digest) == 64 else "no hash"
    method = random.choice(list(METHODS))
    cutoff = random.choice([0.0, 0.3, hostile.number(random)])
    return lambda: load_file(path, method, cutoff), whole


# --- functions ----------------------------------------------------------------------------------


def embeddings(random: Random, folder: Path) -> Made:
    projection = builders.small_projection()
    given = hostile.tensor(random)
    return lambda: projection.apply(given), finite


def mean(random: Random, folder: Path) -> Made:
    rows = builders.normal(random.randrange(1, 4), 32, seed=random.randrange(99))
    rows = hostile.tensor(random) if random.random() < 0.3 else rows
    weights = [hostile.number(random) for _ in range(random.randrange(5))]
    return lambda: spherical_mean(rows, random.choice([None, weights])), finite


def prompt(random: Random, folder: Path) -> Made:
    states = builders.normal(1, 77, 32, seed=2)
    states = hostile.tensor(random) if random.random() < 0.3 else states
    eos = [random.choice([0, 1, 5, 76, 77, -1]) for _ in range(random.randrange(3))]
    blend = random.choice([*BLENDS, hostile.text(random)])
    weight = random.uniform(-10, 10)

    def act() -> torch.Tensor:
        made = condition(states, eos, builders.normal(2, 32), weight, blend)
        return apply_strength(made, builders.normal(1, 77, 32), random.uniform(-10, 10))

    return act, finite


# --- unfinished fits ------------------------------------------------------------------------------


def _trainer() -> Trainer:
    start = builders.small_projection()
    return Trainer(toys.ToyDenoiser(), start, toys.pictures(), toys.null(), toys.both(1e-2), seed=1)


def _state(trainer: Trainer) -> list[torch.Tensor]:
    kinds = (trainer.parameters.values, trainer.optimizer.first, trainer.optimizer.second)
    return [value.detach().clone() for kind in kinds for value in kind.values()]


def unfinished_fit(random: Random, folder: Path) -> Made:
    """A run of the right fingerprint with other tensors or facts, or with damaged bytes."""
    path, trainer = folder / "run.safetensors", _trainer()
    trainer.step()
    save_checkpoint(trainer, path)
    file = TensorFile.open(path)
    facts, tensors = dict(file.metadata), file.read_all()
    kept = {"format", "format_version", "fingerprint"}
    if random.random() < 0.6:
        facts[random.choice(sorted(facts.keys() - kept))] = hostile.json_text(random)
    if random.random() < 0.6:
        name = random.choice(sorted(tensors))
        tensors[name] = random.choice(
            [hostile.tensor(random), tensors[name] * hostile.NAN, tensors[name].double()]
        )
    tensors = {k: t for k, t in tensors.items() if t.layout == torch.strided and not t.is_meta}
    _write(path, tensors, facts)
    if random.random() < 0.3:
        path.write_bytes(hostile.damaged(random, path.read_bytes()))
    fresh = _trainer()
    before = _state(fresh)

    def act() -> Trainer:
        try:
            load_checkpoint(fresh, path)
        except ValueError:
            now = _state(fresh)
            unchanged = all(map(torch.equal, before, now)) and not fresh.losses
            assert unchanged, "refused, and yet the trainer was changed"
            raise
        return fresh

    return act, _sound


def _sound(trainer: Trainer) -> str | None:
    losses = [*trainer.losses, *(loss for _, loss in trainer.held_out_losses)]
    if not all(type(loss) is float and loss == loss for loss in losses):
        return f"losses {losses}"
    if len(trainer.losses) != trainer.steps_done:
        return "another number of losses than of steps"
    values = _state(trainer)
    return next((wrong for wrong in map(finite, values) if wrong), None)


# --- names and workflows --------------------------------------------------------------------------


def prefix(random: Random, folder: Path) -> Made:
    drawn = hostile.anything(random) if random.random() < 0.2 else hostile.text(random)
    return lambda: check_prefix(drawn, "projections"), _inside


def _inside(name: str) -> str | None:
    for path, root in ((ntpath, "C:\\models"), (posixpath, "/models")):
        placed = path.normpath(path.join(root, name))
        if placed == root or not placed.startswith(path.join(root, "")):
            return f"{name!r} leads to {placed!r}"
    return None if check_prefix(name, "projections") == name else "another meaning at a second look"


WORKFLOWS = sorted((builders.ROOT / "workflows" / "api").glob("*.json"))


def workflow(random: Random, folder: Path) -> Made:
    """An API workflow with parts replaced or damaged, and settings to put into it."""
    path = folder / "workflow.json"
    graph = json.loads(random.choice(WORKFLOWS).read_text())
    for _ in range(random.randrange(3)):
        number = random.choice(list(graph))
        node = graph[number]
        if random.random() < 0.4 or not isinstance(node, dict):
            graph[number] = hostile.json_value(random)
        else:
            node[random.choice(["class_type", "inputs", "_meta"])] = hostile.json_value(random)
    content = json.dumps(graph).encode()
    path.write_bytes(hostile.damaged(random, content) if random.random() < 0.4 else content)
    names = ["seed", "KSampler.seed", "3.seed", "x.y", "", ".", "text_weight", hostile.text(random)]
    settings = {random.choice(names): hostile.json_value(random)}
    texts = [hostile.text(random) for _ in range(random.randrange(3))]
    return lambda: with_inputs(load_workflow(path), (), texts, settings), _still_a_graph


def _still_a_graph(graph: dict) -> str | None:
    sound = all(isinstance(node.get("inputs"), dict) for node in graph.values())
    return None if sound else "nodes without inputs"


KINDS = (
    Kind("saved file", 0.25, saved_file),
    Kind("CLIP file", 0.2, clip_file),
    Kind("image embeddings", 0.1, embeddings),
    Kind("spherical mean", 0.1, mean),
    Kind("prompt", 0.1, prompt),
    Kind("unfinished fit", 0.05, unfinished_fit),
    Kind("filename prefix", 0.1, prefix),
    Kind("workflow", 0.1, workflow),
)
