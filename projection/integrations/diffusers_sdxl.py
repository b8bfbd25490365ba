"""A picture as SDXL's prompt in diffusers, for use without ComfyUI.

    readings = sdxl_readings(pipeline, clip.text_projection.weight, captions)
    readings = readings.with_direction(visual_direction(clip.visual_projection.weight))
    text = sdxl_text(pipeline, "in the snow")
    prompt, pooled = picture_prompt(readings, image_embeds, text)
    empty = sdxl_text(pipeline, "")
    pipeline(
        prompt_embeds=prompt, pooled_prompt_embeds=pooled,
        negative_prompt_embeds=torch.cat([empty.states["l"], empty.states["g"]], dim=-1),
        negative_pooled_prompt_embeds=empty.pooled,
    )

clip: openai/clip-vit-large-patch14, whose vision encoder gives image_embeds (1, 768); for more
pictures repeat the negative pair as often, as diffusers expects. Objects are taken as they come
(diffusers is not imported), so any pipeline with the same parts will do: `tokenizer`,
`tokenizer_2`, `text_encoder`, `text_encoder_2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..families.family import SDXL, Family
from ..families.least_squares import fit_readings
from ..families.readings import Readings
from ..families.slots import EncodedPrompt
from ..prompt.conditioning import CHUNK, first_eos

# Pads drift with their distance to the first EOS; this is the middle of what short texts have.
PAD_AFTER = 16
_AT_ONCE = 32


def sdxl_text(pipeline: Any, text: str) -> EncodedPrompt:
    """One text as the pipeline's encoders give it to the U-Net: one chunk of 77 tokens."""
    states, ends, pooled, _ = _encoded(pipeline, [text])
    return EncodedPrompt(states, {key: [int(end[0])] for key, end in ends.items()}, pooled)


def sdxl_readings(
    pipeline: Any,
    text_projection: Tensor,
    captions: Sequence[str],
    family: Family = SDXL,
) -> Readings:
    """Readings for the pipeline's two text encoders, from N >= 100 captions.

    text_projection: W_t (J, D) of the CLIP that the first encoder came from, as
    `torch.nn.Linear.weight`. family: of the encoders' widths. Raises ImageToPromptError as
    `fit_readings`.
    """
    joint, found = [], []
    for start in range(0, len(captions), _AT_ONCE):
        states, ends, pooled, last = _encoded(pipeline, captions[start : start + _AT_ONCE])
        rows = torch.arange(len(pooled))
        each = {"pooled": pooled}
        for key, some in states.items():
            each[f"{key}.eos"] = some[rows, ends[key]]
            each[f"{key}.pad"] = some[rows, (ends[key] + PAD_AFTER).clamp(max=CHUNK - 1)]
        found.append(each)
        joint.append(last[rows, ends["l"]] @ text_projection.to(last).T)
    states = {name: torch.cat([each[name] for each in found]) for name in family.reading_names}
    return fit_readings(family, torch.cat(joint), states)


@torch.no_grad()
def _encoded(
    pipeline: Any, texts: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """Penultimate states (N, 77, D) and first EOS (N,) by key, pooled (N, P), L's last states."""
    states, ends, outputs = {}, {}, {}
    encoders = {
        "l": (pipeline.tokenizer, pipeline.text_encoder),
        "g": (pipeline.tokenizer_2, pipeline.text_encoder_2),
    }
    for key, (tokenizer, encoder) in encoders.items():
        options = {"padding": "max_length", "max_length": CHUNK, "truncation": True}
        ids = tokenizer(list(texts), return_tensors="pt", **options)["input_ids"]
        outputs[key] = encoder(ids.to(encoder.device), output_hidden_states=True)
        states[key] = outputs[key].hidden_states[-2].float().cpu()
        eos = tokenizer.eos_token_id
        ends[key] = torch.tensor([first_eos(row, eos) for row in ids.tolist()])
    last = outputs["l"].last_hidden_state.float().cpu()
    return states, ends, outputs["g"].text_embeds.float().cpu(), last
