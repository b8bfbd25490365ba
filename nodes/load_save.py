"""LoadProjection and SaveProjection.

The host gives LoadProjection every input as a list, so that it sees all pictures of a folder loader
at once. Other lists give what they give to a node that takes none: see `lists`.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..projection import (
    METHODS,
    ImageToPromptError,
    Projection,
    UNetDeltas,
    content_hash,
    lora_state,
)
from ..projection.errors import escape
from ..projection.storage.projection_file import save_new_projection, write_new_tensors
from .families.load import CORPUS_SIZE
from .gap.inputs import gap_inputs
from .gap.load import loaded, missing, readable_path
from .host import api as host
from .host import files
from .host.api import io, ui
from .inputs.advice import with_advice
from .inputs.checks import check_flag, check_projection, writing
from .inputs.lists import as_list, mapped
from .types import CATEGORY, PROJECTION

log = logging.getLogger(__name__)


class LoadProjection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["image to prompt", "sd-ipc", "clip projection", "text projection"],
            node_id="LoadProjection",
            display_name="Load Projection",
            category=CATEGORY,
            description=(
                "Makes the projection that turns CLIP image embeddings into prompts, from a full "
                "CLIP file (text and vision), in under a second and without training. "
                "With the CLIP of an SDXL or SD 2.x checkpoint it is made for that model, from "
                "captions. Or loads one that Save Projection wrote."
            ),
            is_input_list=True,  # a folder loader gives its pictures as a list
            inputs=[
                io.Combo.Input(
                    "file",
                    options=files.projection_files(),
                    tooltip=(
                        "A full CLIP file or a saved projection (.safetensors). For SD 1.x: "
                        "openai/clip-vit-large-patch14's model.safetensors in models/text_encoders "
                        "or models/clip_vision. SD checkpoints do not contain what is needed. "
                        "Saved projections are in models/projections."
                    ),
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="pseudo-inverse",
                    tooltip=(
                        "How CLIP's text projection is inverted. pseudo-inverse: the paper's. "
                        "ridge: damps weak directions instead of cutting them, which was worse "
                        "on real CLIP. transpose: no inverse, better there at telling classes "
                        "apart; neither was judged with a real SD model. A saved projection keeps "
                        "its own."
                    ),
                ),
                io.Float.Input(
                    "cutoff",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    round=0.0001,
                    tooltip=(
                        "Singular values of the text projection below this are cut "
                        "(pseudo-inverse) or damped (ridge); transpose ignores it. 0 is automatic: "
                        "0.3 for CLIP ViT-L/14 as in the paper, 0.7 x median for others. Higher "
                        "loses detail, much lower amplifies noise. A saved projection keeps "
                        "its own."
                    ),
                ),
                *gap_inputs(),
            ],
            outputs=[
                PROJECTION.Output(
                    display_name="PROJECTION",
                    is_output_list=True,
                    tooltip="For Image To Prompt Embed and Save Projection.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, file: Any) -> bool | str:
        absent = [name for name in as_list(file, "file") if not files.paths_of(name)]
        return str(missing(absent[0])) if absent else True

    @classmethod
    def fingerprint_inputs(cls, file: Any, **_: object) -> str:
        try:
            return " ".join(content_hash(readable_path(name)) for name in as_list(file, "file"))
        except ImageToPromptError as error:
            return str(error)

    @classmethod
    @with_advice
    def execute(
        cls,
        file: Any,
        method: Any,
        cutoff: Any,
        clip: Any = None,
        image: Any = None,
        captions: Any = "",
        gap: Any = 0.0,
        clip_vision: Any = None,
        corpus_size: Any = CORPUS_SIZE,
    ) -> io.NodeOutput:
        """A list of PROJECTION from lists of inputs, as the host gives them.

        A program that calls with single values gets a single PROJECTION.
        """
        inputs = {name: value for name, value in locals().items() if name not in ("cls", "image")}
        if not isinstance(file, list):
            return io.NodeOutput(loaded(image=image, **inputs))
        lists = {name: as_list(value, name) for name, value in inputs.items()}
        return io.NodeOutput([loaded(image=image, **item) for item in mapped(lists)])


class SaveProjection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["export projection", "image to prompt"],
            node_id="SaveProjection",
            display_name="Save Projection",
            category=CATEGORY,
            description=(
                "Saves a projection into models/projections as a small .safetensors file (2.4 MB "
                "for SD 1.x, more if it was fitted), which Load Projection lists. It replaces the "
                "1.7 GB CLIP file there."
            ),
            inputs=[
                PROJECTION.Input("projection", tooltip="The projection to save."),
                io.String.Input(
                    "filename_prefix",
                    default="projection",
                    tooltip=(
                        "File name without number and ending; may contain a subfolder and core's "
                        "%year%-style dates. Always inside the projections folder; never "
                        "overwrites a file."
                    ),
                ),
                io.Boolean.Input(
                    "save_lora",
                    default=False,
                    optional=True,
                    tooltip=(
                        "Of a fitted or refined projection: also save what it changes in the "
                        "model into models/loras, for core's Load LoRA. The prompt's own part "
                        "stays in the projection."
                    ),
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    @with_advice
    def execute(
        cls, projection: Projection, filename_prefix: str, save_lora: bool = False
    ) -> io.NodeOutput:
        change = check_projection(projection).cross_attention
        if check_flag(save_lora, "save_lora") and change is None:
            raise ImageToPromptError(
                "a projection that changes the model, to save as a LoRA",
                "one that changes nothing in it: never trained on a model, or without a gain",
                "Switch save_lora off, or fit it first.",
            )
        with writing(filename_prefix):
            written = _write(projection, change if save_lora else None, filename_prefix)
        saved = "\n".join(escape(str(path)) for path in written)
        log.info("saved %s as %s", projection, saved)
        return io.NodeOutput(ui=ui.PreviewText(saved))


def _write(projection: Projection, change: UNetDeltas | None, prefix: str) -> list[Path]:
    """The new files: the projection and, of a change, its LoRA. Both or none."""
    projections = files.new_names(files.PROJECTIONS, prefix)
    loras = files.new_names(files.LORAS, prefix) if change is not None else None
    with ExitStack() as undo:
        written = [save_new_projection(projection, *projections)]
        undo.callback(written[0].unlink)
        if change is not None and loras is not None:
            facts = {"modelspec.title": prefix}
            written.append(write_new_tensors(*loras, lora_state(change), facts))
        undo.pop_all()
    return written


NODES = [LoadProjection, SaveProjection]
