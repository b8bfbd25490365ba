"""SD-IPC: CLIP as an image-to-prompt converter, in pure torch. Usable without ComfyUI.

Ding et al., "The CLIP Model is Secretly an Image-to-Prompt Converter", NeurIPS 2023.
"""

from .checkpoint import load_checkpoint, save_checkpoint
from .clip_file import ClipProjections, read_clip_projections
from .clip_model import TransformersTower, from_clip_model, null_prompt, prompt_embeds
from .combine import spherical_mean
from .corpus import captions, phrases
from .cross_attention import CrossAttention, Full, LowRank, check_maps, lora_state
from .denoiser import Denoiser
from .diffusers_unet import DiffusersDenoiser
from .encoder import Encoder
from .errors import ImageToPromptError
from .files import content_hash, load_file
from .inverse import METHODS, Decomposition, Inverse, decompose, invert, portable_cutoff
from .pictures import Pictures
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
from .recipes import FIT, REFINE, TEXT_ONLY, Recipe, recipe
from .residual import Residual
from .storage import is_projection, load_projection, save_projection
from .text_fit import fit_from_text, text_projection_of
from .texts import Texts
from .trainer import Progress, Trainer, fit, refine
from .vision import DeepPrompts, VisionTower, check_tower, encode_pictures

__all__ = [
    "BLENDS",
    "FIT",
    "METHODS",
    "PAPER_NORM",
    "PAPER_TEXT_WEIGHT",
    "REFINE",
    "TEXT_ONLY",
    "ClipProjections",
    "CrossAttention",
    "Decomposition",
    "DeepPrompts",
    "Denoiser",
    "DiffusersDenoiser",
    "Encoder",
    "Full",
    "ImageToPromptError",
    "Inverse",
    "LowRank",
    "Pictures",
    "Progress",
    "Projection",
    "Recipe",
    "Residual",
    "Texts",
    "Trainer",
    "TransformersTower",
    "VisionTower",
    "apply_strength",
    "assemble",
    "captions",
    "check_maps",
    "check_tower",
    "condition",
    "content_hash",
    "decompose",
    "edit",
    "edit_at_norm",
    "encode_pictures",
    "first_eos",
    "fit",
    "fit_from_text",
    "from_clip_model",
    "has_words",
    "image_slots",
    "invert",
    "is_projection",
    "load_checkpoint",
    "load_file",
    "load_projection",
    "lora_state",
    "null_prompt",
    "phrases",
    "portable_cutoff",
    "prompt_embeds",
    "read_clip_projections",
    "recipe",
    "refine",
    "save_checkpoint",
    "save_projection",
    "spherical_mean",
    "text_projection_of",
]
