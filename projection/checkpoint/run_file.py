"""A training run on disk: written whole or not at all, resumed bit for bit.

A checkpoint resumes only the run that wrote it: its fingerprint covers the images, the empty
prompt, the projection and the configuration. The model is known by the shapes of its linear maps
and its noise schedule; its weights are not read. A run whose images and texts were encoded by
another number of threads is resumed too, and is then the uninterrupted one up to rounding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..closed_form.centred import TENSORS
from ..config.recipe import recipe_fields
from ..errors import ImageToPromptError
from ..state_dict import adapter_state_dict
from ..storage.projection_file import write_tensors
from ..training.trainer import Trainer
from .fingerprint import digest_of, is_near, sketch_of
from .run_state import BEST, DO, FIRST, SECOND, SKETCH, VALUE, RunState, read_state

FORMAT = "image-to-prompt run"
_VERSION = 1


def save_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Write the run as it stands. Raises OSError where that is not possible."""
    groups: dict[str, Mapping[str, Tensor]] = {
        VALUE: trainer.parameters.values,
        FIRST: trainer.optimizer.first,
        SECOND: trainer.optimizer.second,
        BEST: trainer.best or {},
    }
    tensors = {f"{kind}/{n}": value for kind, group in groups.items() for n, value in group.items()}
    tensors[SKETCH] = sketch_of(_encoded_inputs(trainer))
    facts = {
        "format": FORMAT,
        "format_version": str(_VERSION),
        "fingerprint": run_fingerprint(trainer),
        "exact_inputs": _exact_fingerprint(trainer),
        "losses": json.dumps(trainer.losses),
        "held_out_losses": json.dumps(trainer.held_out_losses),
    }
    write_tensors(path, tensors, facts)


def load_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Let a fresh trainer, made with the same arguments, go on from a saved run.

    Raises ImageToPromptError for another kind of file, for a run with other images, model,
    configuration or seed, and for a damaged one; the trainer is then as it was.
    """
    name = Path(path).name
    if not Path(path).is_file():  # a pipe or device would block
        raise ImageToPromptError("a saved run", f"{name}, which is no file", DO)
    try:
        with safe_open(path, "pt") as file:
            facts = dict(file.metadata() or {})
            _check_run(trainer, file, facts, name)
            state = read_state(file, facts, trainer.parameters.values, name)
    except (SafetensorError, OSError) as error:
        raise ImageToPromptError("a saved run", f"{name}: {error}", DO) from error
    _adopt(trainer, state)


def _check_run(trainer: Trainer, file: Any, facts: dict[str, str], name: str) -> None:
    """Raise ImageToPromptError unless the file is of the trainer's own run."""
    if facts.get("format") != FORMAT or facts.get("format_version") != str(_VERSION):
        raise ImageToPromptError("a saved run", f"{name}, which is another file", DO)
    if facts.get("fingerprint") == run_fingerprint(trainer):
        return
    near = facts.get("exact_inputs") == _exact_fingerprint(trainer)
    if near and SKETCH in file.keys():  # noqa: SIM118
        near = is_near(sketch_of(_encoded_inputs(trainer)), file.get_tensor(SKETCH))
    if not near:
        raise ImageToPromptError(
            "a run with these images, model, preset and seed", f"{name}, another run", DO
        )


def _adopt(trainer: Trainer, state: RunState) -> None:
    """Give the trainer this state, all of it: nothing here can fail halfway."""
    with torch.inference_mode(False), torch.no_grad():
        best = state.tensors.get(BEST)
        own_best = None if best is None else dict(best)
        for name, value in trainer.parameters.values.items():
            value.copy_(state.tensors[VALUE][name])
    trainer.optimizer.first = dict(state.tensors[FIRST])
    trainer.optimizer.second = dict(state.tensors[SECOND])
    trainer.optimizer.step = len(state.losses)
    trainer.losses, trainer.held_out_losses = state.losses, state.held_out_losses
    trainer.best = own_best


def run_fingerprint(trainer: Trainer) -> str:
    """SHA-256 of everything a run's steps depend on but the model's weights.

    The micro-batch size is not in it: a run that was too large for the memory goes on in smaller
    parts, the same up to rounding. Settings have the names of earlier versions, see `recipe`.
    """
    initial = trainer.parameters.initial
    null, prompts = trainer.loss.form.null.states, trainer.sampler.prompts
    tensors = [null, trainer.denoiser.alphas_cumprod, initial.matrix, initial.bias]
    tensors += [*adapter_state_dict(initial).values(), *_centred_tensors(trainer)]
    tensors.append(None if prompts is None else prompts.states)
    tensors += _family_tensors(trainer)
    return digest_of(_settings(trainer), [*tensors, *_image_tensors(trainer)])


def _exact_fingerprint(trainer: Trainer) -> str:
    """SHA-256 of the inputs that no rounding changes: what is not in `_encoded_inputs`."""
    initial = trainer.parameters.initial
    tensors = [trainer.denoiser.alphas_cumprod, *adapter_state_dict(initial).values()]
    shapes = [None if t is None else list(t.shape) for t in _encoded_inputs(trainer)]
    return digest_of({**_settings(trainer), "shapes": shapes}, tensors)


def _settings(trainer: Trainer) -> dict[str, Any]:
    shapes, centred = trainer.denoiser.linear_shapes, trainer.parameters.initial.centred
    readings = trainer.parameters.initial.readings
    shares = ("removed", "offset_share", "gap")
    own = {} if centred is None else {name: getattr(centred, name) for name in shares}
    return {
        **({"centred": own} if own else {}),
        **({"family": readings.family.name, "layer": readings.layer} if readings else {}),
        "recipe": recipe_fields(trainer.config),
        "seed": trainer.seed,
        "planned": trainer.schedule_steps,
        "prediction": trainer.denoiser.prediction_type,
        "maps": {name: list(shape) for name, shape in shapes.items()},
    }


def _encoded_inputs(trainer: Trainer) -> list[Tensor | None]:
    """Tensors that are computed anew before every run, and may differ by rounding."""
    initial, prompts = trainer.parameters.initial, trainer.sampler.prompts
    texts = None if prompts is None else prompts.states
    own = [trainer.loss.form.null.states, initial.matrix, initial.bias, texts]
    own += [*_image_tensors(trainer), *_centred_tensors(trainer)]
    return [*own, *_family_tensors(trainer)]


def _centred_tensors(trainer: Trainer) -> list[Tensor]:
    """Those of a centred form, whose offset, spread and direction are encoded anew; or none."""
    centred = trainer.parameters.initial.centred
    if centred is None:
        return []
    tensors = [getattr(centred, name) for name in TENSORS]
    return [*tensors, torch.tensor([centred.spread], dtype=torch.float64)]


def _family_tensors(trainer: Trainer) -> list[Tensor | None]:
    """Those of readings and pooled texts, which are encoded anew; none for SD 1.x."""
    readings, prompts = trainer.parameters.initial.readings, trainer.sampler.prompts
    if readings is None:
        return []
    tensors: list[Tensor | None] = [readings.centre, readings.direction]
    for reading in readings.readings.values():
        tensors += [reading.matrix, reading.offset, reading.scale * reading.spread]
    tensors.append(trainer.loss.form.null.pooled)
    return [*tensors, None if prompts is None else prompts.pooled]


def _image_tensors(trainer: Trainer) -> list[Tensor | None]:
    tensors: list[Tensor | None] = []
    for images in (trainer.images, trainer.held_out, trainer.sampler.prior):
        tensors += [None] if images is None else [*images.latents, images.embeds]
        tensors.append(None if images is None else images.pixels)
    return tensors
