"""SD-IPC: CLIP as an image-to-prompt converter, in pure torch. Usable without ComfyUI.

Ding et al., "The CLIP Model is Secretly an Image-to-Prompt Converter", NeurIPS 2023.
"""

from .clip_file import ClipProjections, read_clip_projections
from .clip_model import from_clip_model, null_prompt, prompt_embeds
from .combine import spherical_mean
from .encoder import Encoder
from .errors import ImageToPromptError
from .files import content_hash, load_file
from .inverse import METHODS, Decomposition, Inverse, decompose, invert, portable_cutoff
from .projector import PAPER_NORM, Projection
from .prompt import (
    BLENDS,
    PAPER_TEXT_WEIGHT,
    apply_strength,
    assemble,
    condition,
    edit,
    edit_at_norm,
    first_eos,
    has_words,
    image_slots,
)
from .storage import is_projection, load_projection, save_projection

__all__ = [
    "BLENDS",
    "METHODS",
    "PAPER_NORM",
    "PAPER_TEXT_WEIGHT",
    "ClipProjections",
    "Decomposition",
    "Encoder",
    "ImageToPromptError",
    "Inverse",
    "Projection",
    "apply_strength",
    "assemble",
    "condition",
    "content_hash",
    "decompose",
    "edit",
    "edit_at_norm",
    "first_eos",
    "from_clip_model",
    "has_words",
    "image_slots",
    "invert",
    "is_projection",
    "load_file",
    "load_projection",
    "null_prompt",
    "portable_cutoff",
    "prompt_embeds",
    "read_clip_projections",
    "save_projection",
    "spherical_mean",
]
