"""SavePrompt and LoadPrompt: what a picture became, to be shared without the picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...projection import (
    BLENDS,
    ImageToPromptError,
    Projection,
    SlotPrompt,
    content_hash,
    load_prompt,
)
from ...projection.errors import escape, quoted
from ...projection.families.saved import FamilyPrompt
from ...projection.storage.prompt_file import save_new_prompt
from ...projection.tensors import is_plain
from ..families.saved import saved_entries
from ..host import api as host
from ..host import files
from ..host.api import io, ui
from ..inputs.advice import with_advice
from ..inputs.checks import (
    check_choice,
    check_number,
    check_projection,
    check_socket,
    check_text,
    writing,
)
from ..inputs.embed_inputs import embed_inputs
from ..types import CATEGORY, PROJECTION
from .entries import entries_of

log = logging.getLogger(__name__)


class SavePrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return host.schema(
            search_aliases=["share prompt", "export conditioning", "image to prompt"],
            node_id="ImageToPromptSavePrompt",
            display_name="Save Prompt",
            category=CATEGORY,
            description=(
                "Saves what a picture became into models/prompts, as a .safetensors file of 4 KB "
                "for a picture alone (SD 2.x: 37 KB, SDXL: 64 KB), so that a workflow can be "
                "shared without the picture. SD 1.x, SD 2.x and SDXL. Load Prompt lists it."
            ),
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip=(
                        "From Image To Prompt Embed or Image To Prompt Mix, without a text and "
                        "with strength 1: both can be set again on Load Prompt. A text that is in "
                        "it is saved as well."
                    ),
                ),
                PROJECTION.Input(
                    "projection",
                    tooltip="The projection that made it. The file names its CLIP and family.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="prompt",
                    tooltip=(
                        "File name without number and ending; may contain a subfolder and core's "
                        "%year%-style dates. Always inside the prompts folder; never overwrites a "
                        "file."
                    ),
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    @with_advice
    def execute(
        cls, conditioning: Any, projection: Projection, filename_prefix: str
    ) -> io.NodeOutput:
        prompt = _prompt(check_projection(projection), *_only_entry(conditioning))
        with writing(filename_prefix):
            path = save_new_prompt(prompt, *files.new_names(files.PROMPTS, filename_prefix))
        log.info("saved %d vectors as %s", len(prompt.vectors), escape(str(path)))
        return io.NodeOutput(ui=ui.PreviewText(escape(str(path))))


class LoadPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        shared = {each.id: each for each in embed_inputs()}
        return host.schema(
            search_aliases=["share prompt", "import conditioning", "image to prompt"],
            node_id="ImageToPromptLoadPrompt",
            display_name="Load Prompt",
            category=CATEGORY,
            description=(
                "Loads a prompt that Save Prompt wrote, as plain CONDITIONING: a picture's prompt "
                "without the picture, CLIP vision and projection. Add a text to steer it. SD 1.x, "
                "SD 2.x and SDXL."
            ),
            inputs=[
                io.Combo.Input(
                    "file",
                    options=files.names_in(files.PROMPTS),
                    tooltip="A file in models/prompts that Save Prompt or embed_many.py wrote.",
                ),
                io.Clip.Input(
                    "clip",
                    tooltip=(
                        "The text encoder of the checkpoint, of the family that the file names. "
                        "Gives the text, the start token and the empty prompt."
                    ),
                ),
                *(shared[name] for name in ("text", "text_weight", "strength", "blend")),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="CONDITIONING",
                    tooltip=(
                        "The prompt, in the shape that CLIP Text Encode gives: connect it to a "
                        "KSampler's positive or negative."
                    ),
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, **others: Any) -> str:
        path = files.path_in(files.PROMPTS, file)
        if path is None:
            return ""
        try:
            return content_hash(path)
        except ImageToPromptError:
            return ""

    @classmethod
    @with_advice
    def execute(
        cls,
        file: str,
        clip: Any,
        text: str,
        text_weight: float,
        strength: float,
        blend: str = "add",
    ) -> io.NodeOutput:
        check_choice(blend, BLENDS, "blend")
        check_number(text_weight, "text_weight")
        check_number(strength, "strength")
        check_text(text, "text")
        path = files.path_in(files.PROMPTS, file)
        if path is None:
            raise ImageToPromptError(
                f"a {files.SUFFIX} file in the folder {files.PROMPTS} of models",
                f"{quoted(file)}, which is not there",
                "Place it there, and refresh.",
            )
        prompt = load_prompt(path)
        check_socket(clip, "clip")
        if isinstance(prompt, FamilyPrompt):
            return io.NodeOutput(saved_entries(prompt, clip, text, text_weight, strength, blend))
        host.check_clip(clip, prompt.encoder.text_width, prompt.encoder.name)
        return io.NodeOutput(entries_of(prompt, clip, text, text_weight, strength, blend))


def _prompt(
    projection: Projection, states: Tensor, extras: Mapping[str, Any]
) -> SlotPrompt | FamilyPrompt:
    """The prompt that a CONDITIONING's states and extras hold."""
    readings, encoder = projection.readings, projection.encoder
    if readings is None:
        return SlotPrompt.of(states, encoder, projection.centred)
    pooled = extras.get("pooled_output")
    if not isinstance(pooled, Tensor) or not is_plain(pooled):
        raise ImageToPromptError(
            f"a CONDITIONING of {readings.family.name} with a pooled output",
            "one without",
            "Connect Image To Prompt Embed, with the same projection (sockets conditioning, "
            "projection).",
        )
    return FamilyPrompt.of(states, pooled, readings, encoder)


def _only_entry(conditioning: Any) -> Any:
    """The entry of a CONDITIONING of one. Raises ImageToPromptError for anything else."""
    whole = isinstance(conditioning, list) and all(
        isinstance(entry, (list, tuple))
        and len(entry) == 2
        and isinstance(entry[0], Tensor)
        and isinstance(entry[1], dict)
        for entry in conditioning
    )
    if not whole or len(conditioning) != 1:
        got = f"{len(conditioning)}" if whole else type(conditioning).__name__
        raise ImageToPromptError(
            "a CONDITIONING of one entry",
            got,
            "Connect socket conditioning before Conditioning (Combine) and before hooks.",
        )
    return conditioning[0]


NODES = [SavePrompt, LoadPrompt]
