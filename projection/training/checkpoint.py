"""A run on disk: written whole or not at all, resumed bit for bit.

A checkpoint only goes on where it came from: its fingerprint covers the pictures, the empty
prompt, the projection and the recipe. The model is known by its maps and its noise schedule; its
weights are not read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..closed_form.centred import NUMBERS, TENSORS
from ..errors import ImageToPromptError
from ..state_dict import adapter_state_dict
from ..storage.projection_file import write_tensors
from .trainer import Trainer

FORMAT = "image-to-prompt run"
_VERSION = 1
_REMOVE = "Fit anew, or go on with the same pictures, model, preset and seed."


def save_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Write the run as it stands."""
    tensors = {f"value/{name}": value for name, value in trainer.trainable.values.items()}
    tensors |= {f"first/{name}": value for name, value in trainer.adam.first.items()}
    tensors |= {f"second/{name}": value for name, value in trainer.adam.second.items()}
    tensors |= {f"best/{name}": value for name, value in (trainer.best or {}).items()}
    facts = {
        "format": FORMAT,
        "format_version": str(_VERSION),
        "fingerprint": run_fingerprint(trainer),
        "losses": json.dumps(trainer.losses),
        "held_out_losses": json.dumps(trainer.held_out_losses),
    }
    write_tensors(path, tensors, facts)


def load_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Let a fresh trainer, made with the same arguments, go on from a saved run.

    Raises ImageToPromptError for another kind of file, or a run with other pictures, model,
    recipe or seed; the trainer is then as it was.
    """
    name = Path(path).name
    try:
        with safe_open(path, "pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ImageToPromptError("a saved run", f"{name}: {error}", _REMOVE) from error
    if facts.get("format") != FORMAT or facts.get("format_version") != str(_VERSION):
        raise ImageToPromptError("a saved run", f"{name}, which is another file", _REMOVE)
    if facts.get("fingerprint") != run_fingerprint(trainer):
        raise ImageToPromptError(
            "a run with these pictures, model, preset and seed", f"{name}, another run", _REMOVE
        )
    try:
        _adopt(trainer, tensors, facts)
    except (KeyError, json.JSONDecodeError) as error:
        raise ImageToPromptError("a whole saved run", f"{name} without {error}", _REMOVE) from error


def _adopt(trainer: Trainer, tensors: dict[str, Tensor], facts: dict[str, str]) -> None:
    losses = json.loads(facts["losses"])
    held_out = [(int(step), float(loss)) for step, loss in json.loads(facts["held_out_losses"])]
    names = list(trainer.trainable.values)
    with torch.inference_mode(False), torch.no_grad():
        found = {
            kind: {name: tensors[f"{kind}/{name}"] for name in names}
            for kind in ("value", "first", "second")
        }
        best = {name: tensors[f"best/{name}"] for name in names} if held_out else None
        for name, value in trainer.trainable.values.items():
            value.copy_(found["value"][name])
            trainer.adam.first[name].copy_(found["first"][name])
            trainer.adam.second[name].copy_(found["second"][name])
            if best is not None:
                best[name] = best[name].to(value.device)
    trainer.adam.step, trainer.losses = len(losses), losses
    trainer.held_out_losses, trainer.best = held_out, best


def run_fingerprint(trainer: Trainer) -> str:
    """SHA-256 of everything a run's steps depend on but the model's weights.

    How many noisy pictures the model sees at a time is not in it: a run that was too large for
    the memory goes on in smaller parts, the same up to rounding.
    """
    digest = hashlib.sha256()
    settings = {
        "recipe": asdict(trainer.recipe),
        "seed": trainer.seed,
        "planned": trainer.planned,
        "prediction": trainer.denoiser.prediction,
        "maps": {name: list(shape) for name, shape in trainer.denoiser.layers.items()},
    }
    start = trainer.trainable.start
    if (centred := start.centred) is not None:
        settings["centred"] = {name: getattr(centred, name) for name in NUMBERS}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    tensors = [trainer.null, trainer.denoiser.alphas_cumprod, start.matrix, start.bias]
    tensors += adapter_state_dict(start).values()
    tensors += [] if centred is None else [getattr(centred, name) for name in TENSORS]
    tensors.append(None if trainer.texts is None else trainer.texts.states)
    for pictures in (trainer.pictures, trainer.held_out, trainer.prior):
        tensors += [None] if pictures is None else [*pictures.latents, pictures.embeds]
        tensors.append(None if pictures is None else pictures.pixels)
    for tensor in tensors:
        # What is not there counts too: its place in the order must not be taken by the next.
        digest.update(b"none" if tensor is None else str(tuple(tensor.shape)).encode())
        if tensor is not None:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
