"""ApplyProjection: a MODEL with the weight changes of a fitted projection."""

from __future__ import annotations

import logging
from typing import Any

from ..projection import Projection
from .host import api as host
from .host.api import io
from .host.model.checks import check_family, family_for
from .host.model.patches import patch_model
from .inputs.advice import with_advice
from .inputs.checks import check_number, check_projection, check_socket
from .types import CATEGORY, PROJECTION

log = logging.getLogger(__name__)


class ApplyProjection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["fitted projection", "projection model patch", "sd-ipc"],
            node_id="ApplyProjection",
            display_name="Apply Projection",
            category=CATEGORY,
            description=(
                "Adds the weight changes of a fitted or refined projection to a model, as core's "
                "LoRA loader does. The MODEL of Online Refine and Fit Projection has them already."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The MODEL of the projection's family: SD 1.x, SD 2.x or SDXL. It stays "
                        "as it is."
                    ),
                ),
                PROJECTION.Input(
                    "projection", tooltip="From Load Projection: one that was fitted or refined."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip=(
                        "Factor of the changes. 1: as trained. 0: the model without them. Between: "
                        "weaker, for more freedom."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL", tooltip="The changed model, for a sampler or a LoRA."
                )
            ],
        )

    @classmethod
    @with_advice
    def execute(cls, model: Any, projection: Projection, strength: float) -> io.NodeOutput:
        change = check_projection(projection).cross_attention
        check_socket(model, "model")
        check_family(model, projection.context_width, family_for(projection))
        if change is None:
            log.warning("this projection changes no model: it was not trained on one")
        return io.NodeOutput(patch_model(model, change, check_number(strength, "strength")))


NODES = [ApplyProjection]
