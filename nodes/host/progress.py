"""What training needs of ComfyUI besides the models: latents, progress, previews, files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import latent_preview
from torch import Tensor

from ...projection import ImageToPromptError
from .folders import SUFFIX
from .unet import HostDenoiser

UNFINISHED = "unfinished projections"


def check_vae(vae: Any, model: Any) -> None:
    """Raise ImageToPromptError unless the VAE's latents are what the model denoises."""
    wanted = model.model.latent_format.latent_channels
    channels = getattr(vae, "latent_channels", None)
    found = "no VAE" if vae is None else f"one of {channels} latent channels"
    if channels != wanted or getattr(vae, "latent_dim", 2) != 2:
        raise ImageToPromptError(
            f"a VAE of {wanted} latent channels, as the MODEL's",
            found,
            "Connect the VAE of the same SD 1.x checkpoint (socket vae).",
        )


def latents_of(vae: Any, model: Any, pictures: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Latents (4, h, w) float32 of pictures (1, H, W, 3), as the model takes them and where.

    Sides of the pictures are multiples of 8. Each is encoded alone: sizes may differ.
    """
    found = []
    for picture in pictures:
        comfy.model_management.throw_exception_if_processing_interrupted()
        encoded = model.model.process_latent_in(vae.encode(picture)).float()
        found.append(encoded[0].to(model.load_device))
    return tuple(found)


class ProgressBar:
    """The host's progress bar, which shows a picture where the user has previews switched on."""

    def __init__(self, denoiser: HostDenoiser | None, total: int) -> None:
        self._bar = comfy.utils.ProgressBar(max(1, total))
        self._total = max(1, total)  # no steps are done at once
        self._previewer = denoiser and latent_preview.get_previewer(
            denoiser.device, denoiser.latent_format
        )

    @property
    def shows_pictures(self) -> bool:
        """Whether the user wants previews."""
        return self._previewer is not None

    def show(self, step: int, latents: Tensor | None = None) -> None:
        """Set the bar; latents (1, 4, h, w) in the model's scale become the preview.

        Raises the host's own exception if the user has interrupted.
        """
        # The host's bar checks for it too, but newer ones not at every update.
        comfy.model_management.throw_exception_if_processing_interrupted()
        preview = None
        if latents is not None and self._previewer is not None:
            preview = self._previewer.decode_latent_to_preview_image("JPEG", latents)
        self._bar.update_absolute(step, self._total, preview)


def map_with_progress(items: Sequence[Any], action: Callable[[Any], Any]) -> list[Any]:
    """The action's results, with a progress bar and the host's interrupt before each."""
    bar = ProgressBar(None, len(items))
    results = []
    for number, item in enumerate(items, 1):
        results.append(action(item))
        bar.show(number)
    return results


def unfinished_path(name: str) -> str:
    """Where the run of this name is kept until it is done, in the user's output folder."""
    return os.path.join(folder_paths.get_output_directory(), UNFINISHED, f"{name}{SUFFIX}")
