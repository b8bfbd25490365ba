"""The projection: picture embedding in, prompt embedding out (SD-IPC, section 3).

    u = M v + b             M: an inverse of W_t, (D, J);  v: image_embeds;  b: usually absent
    e = norm * u / |u|      norm 27.5: the paper's length; EOS states of ViT-L/14 measure 28.3

A fitted or refined projection may correct u before its length is set; see `residual`. With a
centred form the direction and the length move from those of SD-IPC towards those of EOS states;
see `centred`.

The length is set after the inverse; scaling v before it changes nothing. Where a bias b is
present v is scaled to length 1 first, since a bias only means something at a fixed scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .adapters.deep_prompts import DeepPrompts
from .adapters.residual import Residual
from .adapters.unet_deltas import CROSS_KV, UNetDeltas
from .closed_form.centred import Centred
from .closed_form.clip_identity import ClipIdentity
from .closed_form.inverse import PAPER_CUTOFF, decompose, invert, portable_cutoff
from .closed_form.sanity import check_entries, check_trained
from .errors import ImageToPromptError, printable, quoted
from .families.readings import Readings
from .tensors import described, is_plain

PAPER_NORM = 27.5
# Lengths of prompt embeddings whose every number float32 can hold.
_NORMS = (1e-30, 1e30)
_DAMAGED = "Make the projection anew from its CLIP file."


@dataclass(frozen=True, eq=False)
class Projection:
    """Turns CLIP image embeddings into prompt embeddings of one text encoder. Immutable.

    matrix: (D, J) float32, joint CLIP space -> text encoder's last-layer state.
    singular_values: (N,) float32, descending, of the text projection W_t.
    norm: length of a prompt embedding, in units of the text encoder's states.
    method, cutoff, kept: how `matrix` was made; see `inverse`.
    bias: (D,) float32 or None, added to M v with v of length 1.
    residual: a trained correction of the prompt embedding, part of `apply`; with readings of the
    image embedding, see `corrected`.
    vision: deep prompts; image embeddings must then come from `encode_pictures` with them.
    cross_attention: changes of linear layers in the U-Net's transformer blocks.
    centred: the form that closes the gap between pictures and texts; None or gap 0 is SD-IPC.
    readings: what pictures become for SD 2.x or SDXL, see `families`; `apply` is for SD 1.x alone.
    Raises ImageToPromptError if the parts do not fit together.
    """

    matrix: Tensor
    singular_values: Tensor
    encoder: ClipIdentity
    method: str
    cutoff: float
    kept: int
    norm: float = PAPER_NORM
    bias: Tensor | None = None
    residual: Residual | None = None
    vision: DeepPrompts | None = None
    cross_attention: UNetDeltas | None = None
    centred: Centred | None = None
    readings: Readings | None = None

    def __post_init__(self) -> None:
        widths = (self.encoder.text_width, self.encoder.joint_width)
        _require(tuple(self.matrix.shape) == widths, f"a matrix of {widths}", self.matrix)
        _require(self.singular_values.ndim == 1, "a list of singular values", self.singular_values)
        if self.bias is not None:
            _require(tuple(self.bias.shape) == widths[:1], f"a bias of {widths[:1]}", self.bias)
        for tensor in (self.matrix, self.singular_values, self.bias):
            if tensor is not None:
                finite = tensor.dtype == torch.float32 and bool(torch.isfinite(tensor).all())
                _require(finite, "finite float32 numbers", tensor)
        if (self.singular_values < 0).any():
            _require(False, "singular values >= 0", self.singular_values)
        if not _NORMS[0] <= self.norm <= _NORMS[1]:  # false for NaN too
            expected = f"a finite norm > 0, from {_NORMS[0]:g} to {_NORMS[1]:g}"
            raise ImageToPromptError(expected, quoted(self.norm), _DAMAGED, "projection file")
        if not (0 < self.kept <= len(self.singular_values) and 0 < self.cutoff < math.inf):
            kept = f"kept {quoted(self.kept)} of {len(self.singular_values)}"
            got = f"cutoff {quoted(self.cutoff)}, {kept}"
            raise ImageToPromptError(
                "a cutoff > 0 that keeps something", got, _DAMAGED, "projection file"
            )
        self._check_trained_parts()
        if self.centred is not None:
            shape = tuple(self.centred.matrix.shape)
            _require(shape == widths, f"a centred form of {widths}", self.centred.matrix)
        if self.readings is not None:
            width = self.readings.joint_width
            _require(width == widths[1], f"readings of {widths[1]}", self.readings.centre)

    def _check_trained_parts(self) -> None:
        vision, context = self.encoder.vision_width, self.context_width
        found = {
            "residual": (self.residual and self.residual.width, self.embedding_width),
            "cross_attention": (self.cross_attention and self.cross_attention.width, context),
            "vision": (self.vision and self.vision.tokens.shape[-1], vision),
        }
        for name, (width, wanted) in found.items():
            if width and wanted and width != wanted:
                raise ImageToPromptError(
                    f"{name} of width {wanted}", f"{width}", _DAMAGED, "projection file"
                )

    @classmethod
    def from_text_projection(
        cls,
        text_projection: Tensor,
        visual_projection: Tensor | None = None,
        method: str = "pseudo-inverse",
        cutoff: float = 0.0,
        norm: float = PAPER_NORM,
    ) -> Projection:
        """The closed form of a CLIP.

        text_projection: W_t (J, D); visual_projection: W_v (J, V), only to recognise the
        encoder; both as `torch.nn.Linear.weight`. cutoff 0 is automatic: the paper's 0.3 for
        ViT-L/14, 0.70 x the median singular value for any other encoder.
        Raises ImageToPromptError for a matrix that is not a trained text projection.
        """
        check_entries(text_projection)
        weight = text_projection.detach().to("cpu", torch.float32)
        svd = decompose(weight)
        check_trained(svd, visual_projection)
        encoder = ClipIdentity.of(weight, visual_projection)
        inverse = invert(svd, method, cutoff or automatic_cutoff(svd.values, encoder))
        return cls(
            matrix=inverse.matrix,
            singular_values=inverse.singular_values,
            encoder=encoder,
            method=method,
            cutoff=inverse.cutoff,
            kept=inverse.kept,
            norm=norm,
        )

    def with_readings(self, readings: Readings) -> Projection:
        """The projection for another model family; its matrix is kept as float16 holds it.

        The closed form is not used with readings, and its file is half as large so. A residual on
        the closed form's prompt embedding is left out: it means nothing in joint CLIP space.
        """
        kept = None if self.readings is None else self.residual
        half = self.matrix.half().float()
        return replace(self, matrix=half, readings=readings, residual=kept)

    @property
    def context_width(self) -> int:
        """D, the width of the context that its prompts give the U-Net's cross-attentions."""
        return self.encoder.text_width if self.readings is None else self.readings.family.width

    @property
    def embedding_width(self) -> int:
        """Width of what a residual corrects: D of SD 1.x's prompt embedding, J with readings."""
        return self.encoder.text_width if self.readings is None else self.encoder.joint_width

    @property
    def common(self) -> Tensor | None:
        """What all its prompt embeddings share (D,), see `Centred.common`; None without a gap."""
        return self.centred.common if self.centred is not None and self.centred.gap > 0 else None

    def apply(self, image_embeds: Tensor) -> Tensor:
        """Prompt embeddings (B, D) float32 of one length from image embeddings.

        The length is `norm`; with a gap > 0 it moves towards the captions', see `centred`.
        image_embeds: (B, J), joint CLIP space, not normalised (any length gives the same).
        Raises ImageToPromptError for another width, or an embedding without a direction.
        """
        if not is_plain(image_embeds):
            raise ImageToPromptError(
                "image embeddings as plain floating-point numbers",
                described(image_embeds),
                "Use image embeddings as the CLIP vision encoder gives them.",
                "vision encoder",
            )
        if image_embeds.ndim != 2 or image_embeds.shape[1] != self.encoder.joint_width:
            raise ImageToPromptError(
                f"image embeddings (B, {self.encoder.joint_width}) from the vision encoder of "
                f"{self.encoder.name}",
                f"{tuple(image_embeds.shape)}",
                "Use image embeddings of the CLIP that the projection belongs to.",
                "vision encoder",
            )
        v = image_embeds.float()
        _require_direction(v, "an image embedding")
        matrix = self.matrix.to(v.device)
        if self.bias is None:
            u = v @ matrix.T  # (B, J) @ (J, D) -> (B, D)
        else:
            u = torch.nn.functional.normalize(v, dim=-1) @ matrix.T + self.bias.to(v.device)
        _require_direction(u, "a projected image")
        length = self.norm
        if self.centred is not None and self.centred.gap > 0:
            u, length = self.centred.blend(u, self.norm, v)
            _require_direction(u, "a projected image")
        if self.residual is not None and self.readings is None:
            u = self.residual.apply(u)
            _require_direction(u, "a projected image")
        return length * u / u.norm(dim=-1, keepdim=True)

    def corrected(self, image_embeds: Tensor) -> Tensor:
        """Image embeddings (B, J) for readings, with what training corrected in them.

        v' = v + |v| (B A n + s), n = v/|v|: the residual in joint CLIP space (ours). Without
        readings or a residual the embeddings themselves; a residual of zeros changes no bit.
        image_embeds: (B, J), joint CLIP space, of any length > 0.
        """
        if self.readings is None or self.residual is None:
            return image_embeds
        return self.residual.apply(image_embeds.float())

    def __repr__(self) -> str:
        parts = [
            self.encoder.name,
            printable(self.method),
            f"kept {self.kept} of {len(self.singular_values)}",
        ]
        if trained := self._trained():
            parts.append(f"refined: {trained}")
        if self.centred is not None:
            parts.append(f"gap {self.centred.gap:g}")
        if self.readings is not None:
            parts.append(f"{self.readings}")
        return f"Projection({', '.join(parts)})"

    def _trained(self) -> str:
        """What was trained, in the words of `training.presets`; empty for the closed form.

        Refining and fitting train the same parts, so the parts do not tell which of them it was.
        """
        unet = self.cross_attention
        if self.vision is not None:
            return "full"
        if unet is not None and not all(name.endswith(CROSS_KV) for name in unet.deltas):
            return "transformer blocks"
        names = {"embedding": self.residual, "cross-attention": unet}
        return " + ".join(name for name, part in names.items() if part is not None)


def automatic_cutoff(values: Tensor, encoder: ClipIdentity) -> float:
    """The paper's 0.3 for ViT-L/14, the portable rule on the singular values (N,) for others."""
    return PAPER_CUTOFF if encoder.is_vit_l14 else portable_cutoff(values)


def _require(condition: bool, expected: str, tensor: Tensor) -> None:
    if not condition:
        raise ImageToPromptError(
            expected, f"{tuple(tensor.shape)} {tensor.dtype}", _DAMAGED, "projection file"
        )


def _require_direction(rows: Tensor, what: str) -> None:
    length = rows.norm(dim=-1)
    if not (torch.isfinite(length) & (length > 0)).all():
        raise ImageToPromptError(
            f"{what} with finite numbers that are not all zero",
            f"lengths {[round(x, 4) for x in length.tolist()[:8]]}",
            "Check the images and the CLIP vision encoder for NaN.",
            "image",
        )
