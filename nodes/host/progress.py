"""ComfyUI's progress bar, its previews, and the user's interrupt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import comfy.model_management
import comfy.utils
import latent_preview
from torch import Tensor

from .unet import HostDenoiser

Item = TypeVar("Item")
Result = TypeVar("Result")


class ProgressBar:
    """The host's progress bar, which shows a picture where the user has previews switched on."""

    def __init__(self, denoiser: HostDenoiser | None, total: int) -> None:
        self._bar = comfy.utils.ProgressBar(max(1, total))
        self._total = max(1, total)  # no steps are done at once
        self._previewer: Any = None
        if denoiser is not None:
            self._previewer = latent_preview.get_previewer(denoiser.device, denoiser.latent_format)

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
