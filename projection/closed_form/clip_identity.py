"""Which CLIP a projection belongs to: its widths, and fingerprints of its two projections."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ImageToPromptError

_DAMAGED = "The projection file is damaged: make it anew."
_MAX_WIDTH = 2**16  # no encoder comes near it
# (text width, joint width, vision width) -> published name. Widths do not tell fine-tunes apart.
_NAMES = {
    (768, 768, 1024): "CLIP ViT-L/14",
    (1024, 1024, 1280): "OpenCLIP ViT-H/14",
    (1280, 1280, 1664): "OpenCLIP ViT-bigG/14",
    (512, 512, 768): "CLIP ViT-B",
}


def fingerprint(weight: Tensor) -> str:
    """SHA-256 of a weight rounded to float16, so that fp16 and fp32 copies of a file agree."""
    half = weight.detach().to("cpu", torch.float16).contiguous()
    digest = hashlib.sha256(str(tuple(half.shape)).encode())
    digest.update(half.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class ClipIdentity:
    """Identity of a CLIP. Widths are those of the text state, the joint space and the ViT's CLS.

    `vision_width` and `visual_projection` are None where only the text half is known.
    """

    text_width: int
    joint_width: int
    vision_width: int | None
    text_projection: str
    visual_projection: str | None = None

    def __post_init__(self) -> None:
        vision = 1 if self.vision_width is None else self.vision_width
        widths = (self.text_width, self.joint_width, vision)
        if any(type(w) is not int or not 1 <= w <= _MAX_WIDTH for w in widths):  # true is no width
            raise ImageToPromptError("encoder widths >= 1", f"{widths}", _DAMAGED)
        marks = (self.text_projection, self.visual_projection)
        if not (isinstance(marks[0], str) and isinstance(marks[1], str | None)):
            raise ImageToPromptError("fingerprints as texts", f"{marks}", _DAMAGED)

    @classmethod
    def of(cls, text_projection: Tensor, visual_projection: Tensor | None = None) -> ClipIdentity:
        """From W_t (J, D) and, where known, W_v (J, V), both as `torch.nn.Linear.weight`."""
        joint, text = text_projection.shape
        visual = visual_projection
        return cls(
            text_width=text,
            joint_width=joint,
            vision_width=None if visual is None else visual.shape[1],
            text_projection=fingerprint(text_projection),
            visual_projection=None if visual is None else fingerprint(visual),
        )

    @property
    def name(self) -> str:
        """The published name of an encoder of these widths, or the widths themselves."""
        for (text, joint, vision), name in _NAMES.items():
            widths = (self.text_width, self.joint_width, self.vision_width or vision)
            if widths == (text, joint, vision):
                return name
        return f"a CLIP with text width {self.text_width} and joint width {self.joint_width}"

    @property
    def is_vit_l14(self) -> bool:
        """Whether the widths are those of the encoder the paper's cutoff was chosen for."""
        return self.name == "CLIP ViT-L/14"
