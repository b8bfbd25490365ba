"""What the encoders of a family say of many captions, at the few positions that are read.

A state depends on what stands before it alone (causal mask), so captions of similar length are cut
behind the last position that is read of them and encoded together: some 30 positions in place of
77. The weights are called through the host's own modules, LoRAs included; the encoders' options
are neither read nor set. Read in 0.3.64 and 0.33.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ....projection import Family, Part, first_eos
from ....projection.prompt.conditioning import CHUNK
from ..progress import map_with_progress
from ..text import encoder_inputs, token_ids
from .clip import encoder_of

AT_ONCE = 32
# Pads drift with their distance to the first EOS; this is the middle of what short texts have.
PAD_AFTER = 16
JOINT = "joint"


def caption_states(
    clip: Any, family: Family, layer: int, texts: Sequence[str], source: str, weight: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Joint embeddings (N, J) of N texts, and their states (N, D) by the family's reading names.

    Float32 on the CPU, from the first chunk of each text. source: key of the part whose last-layer
    EOS states give the joint embeddings; weight: W_t (J, D), None for the part's own. With a
    progress bar; the user's interrupt is met after each 32 texts.
    """
    tokens = [clip.tokenize(text) for text in texts]
    ends = [_end(each[family.keys[0]]) for each in tokens]
    order = sorted(range(len(texts)), key=ends.__getitem__)
    groups = [order[start : start + AT_ONCE] for start in range(0, len(order), AT_ONCE)]
    clip.load_model()

    def encoded(group: Sequence[int]) -> dict[str, Tensor]:
        return _group(clip, family, layer, [tokens[i] for i in group], source, weight)

    parts = map_with_progress(groups, encoded)
    back = torch.tensor(order).argsort()
    found = {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}
    return found.pop(JOINT), found


def _end(chunks: Sequence[Sequence[Any]]) -> int:
    """Position of the first EOS in the first of a text's chunks."""
    return first_eos(token_ids(chunks[:1])[0])


def _group(
    clip: Any,
    family: Family,
    layer: int,
    tokens: Sequence[dict[str, list]],
    source: str,
    weight: Tensor | None,
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for part in family.parts:
        read = _states(clip, part, layer, [each[part.key] for each in tokens])
        last, projected = read.pop("last"), read.pop("projected")
        found |= {f"{part.key}.{name}": states for name, states in read.items()}
        if part.key == family.pooled:
            found["pooled"] = projected
        if part.key == source:
            found[JOINT] = projected if weight is None else last @ weight.to(last).T
    return {name: states.float().cpu() for name, states in found.items()}


def _states(clip: Any, part: Part, layer: int, texts: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
    """One encoder's states (M, D) of the first chunk of M texts, each a list of chunks of tokens.

    eos, pad: of the layer that the U-Net reads. last: last-layer EOS state after the final
    LayerNorm; projected: W_t of it.
    """
    encoder, device = encoder_of(clip, part.key), clip.patcher.load_device
    ends = torch.tensor([_end(chunks) for chunks in texts])
    pads = (ends + PAD_AFTER).clamp(max=CHUNK - 1)
    length = int(pads.max()) + 1
    cut = [[token for token, *_ in chunks[0][:length]] for chunks in texts]
    model = encoder.transformer.text_model
    x, mask = encoder_inputs(encoder, cut, device)
    last, hidden = model.encoder(x, mask=mask, intermediate_output=layer)
    rows, ends, pads = (
        torch.arange(len(texts), device=x.device),
        ends.to(x.device),
        pads.to(x.device),
    )
    read = {"eos": hidden[rows, ends], "pad": hidden[rows, pads]}
    if part.normed:
        read = {name: model.final_layer_norm(states) for name, states in read.items()}
    end = model.final_layer_norm(last[rows, ends])
    return {**read, "last": end, "projected": encoder.transformer.text_projection(end)}
