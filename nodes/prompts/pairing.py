"""Whether a projection, a text encoder and a vision encoder belong together, of any family."""

from __future__ import annotations

import logging
from typing import Any

from ...projection import Projection
from ...projection.closed_form.clip_identity import fingerprint
from ..host import api as host
from ..host.families.clip import check_family
from ..inputs.checks import check_projection, check_socket

log = logging.getLogger(__name__)


def check_models(projection: object, clip: Any, clip_vision: Any) -> Projection:
    """The payload of a PROJECTION socket, where both models are those that it was made for.

    A vision encoder as wide but with other weights is named in the log. Raises ImageToPromptError
    before any model runs.
    """
    found = check_projection(projection)
    encoder, readings = found.encoder, found.readings
    check_socket(clip, "clip")
    if readings is None:
        host.check_clip(clip, encoder.text_width, encoder.name)
    else:
        check_socket(clip_vision, "clip_vision")
        check_family(clip, readings.family, readings.layer)
    visual = host.check_clip_vision(clip_vision, encoder.joint_width, encoder.name)
    if encoder.visual_projection not in (None, fingerprint(visual)):
        log.warning(
            "clip_vision is not the vision encoder of the projection's CLIP, though as wide; "
            "prompts may be off. Load the one that the projection was made with."
        )
    return found
