"""SD-IPC: CLIP as an image-to-prompt converter, in pure torch. Usable without ComfyUI.

Ding et al., "The CLIP Model is Secretly an Image-to-Prompt Converter", NeurIPS 2023.
"""

from .adapters.deep_prompts import DeepPrompts, VisionTower, check_tower, encode_pictures
from .adapters.lora import FullDelta, LoRADelta
from .adapters.residual import Residual
from .adapters.unet_deltas import UNetDeltas, check_maps, lora_state
from .checkpoint.run_file import load_checkpoint, save_checkpoint
from .closed_form.caption_statistics import CaptionStatistics
from .closed_form.centred import (
    MIN_PICTURES,
    PICTURES_SHARE,
    VISUAL_SHARE,
    Centred,
    picture_direction,
    visual_direction,
)
from .closed_form.clip_identity import ClipIdentity
from .closed_form.inverse import METHODS, Decomposition, Inverse, decompose, invert, portable_cutoff
from .concepts.concept import Concept
from .concepts.mixing import only, swap, without
from .concepts.words import CONCEPTS, words_of
from .config.presets import FIT, REFINE, TEXT_ONLY, training_config
from .config.recipe import Recipe
from .config.training_config import (
    DeepPromptsConfig,
    LoRAConfig,
    NoiseConfig,
    PreservationConfig,
    ResidualConfig,
    TrainingConfig,
)
from .data.dataset import TrainingImages
from .data.encoded_prompts import EncodedPrompts
from .diffusion.denoiser import Denoiser
from .diffusion.loss import DiffusionLoss
from .errors import ImageToPromptError
from .families.family import FAMILIES, REFINER, SD1, SD2, SDXL, Family, Part
from .families.least_squares import fit_readings
from .families.reading import Reading
from .families.readings import Readings
from .families.slots import PADS, EncodedPrompt, picture_prompt, pooled_strength
from .integrations.diffusers_unet import DiffusersDenoiser
from .integrations.transformers_clip import (
    TransformersTower,
    from_clip_model,
    null_prompt,
    prompt_embeds,
)
from .projector import PAPER_NORM, Projection
from .prompt.conditioning import (
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
from .prompt.slots import (
    SlotPrompt,
    shared_slots,
    slot_conditioning,
    weighted,
    weighted_mean,
)
from .prompt.spherical_mean import spherical_mean
from .regression.captions import broad_captions, captions, phrases, vocabulary_words
from .regression.text_regression import fit_from_text, text_projection_of
from .storage.any_file import content_hash, load_file, load_weights
from .storage.clip_file import ClipProjections, read_clip_projections
from .storage.projection_file import is_projection, load_projection, save_projection
from .storage.prompt_file import load_prompt, save_prompt
from .training.loops import fit, refine
from .training.trainer import Progress, Trainer

# Names of earlier versions, for code that was written then. `Recipe` is another.
CrossAttention, Full, LowRank = UNetDeltas, FullDelta, LoRADelta
Encoder, Pictures, Texts = ClipIdentity, TrainingImages, EncodedPrompts
recipe = training_config

__all__ = [
    "BLENDS",
    "CONCEPTS",
    "FAMILIES",
    "FIT",
    "METHODS",
    "MIN_PICTURES",
    "PADS",
    "PAPER_NORM",
    "PAPER_TEXT_WEIGHT",
    "PICTURES_SHARE",
    "REFINE",
    "REFINER",
    "SD1",
    "SD2",
    "SDXL",
    "TEXT_ONLY",
    "VISUAL_SHARE",
    "CaptionStatistics",
    "Centred",
    "ClipIdentity",
    "ClipProjections",
    "Concept",
    "CrossAttention",
    "Decomposition",
    "DeepPrompts",
    "DeepPromptsConfig",
    "Denoiser",
    "DiffusersDenoiser",
    "DiffusionLoss",
    "EncodedPrompt",
    "EncodedPrompts",
    "Encoder",
    "Family",
    "Full",
    "FullDelta",
    "ImageToPromptError",
    "Inverse",
    "LoRAConfig",
    "LoRADelta",
    "LowRank",
    "NoiseConfig",
    "Part",
    "Pictures",
    "PreservationConfig",
    "Progress",
    "Projection",
    "Reading",
    "Readings",
    "Recipe",
    "Residual",
    "ResidualConfig",
    "SlotPrompt",
    "Texts",
    "Trainer",
    "TrainingConfig",
    "TrainingImages",
    "TransformersTower",
    "UNetDeltas",
    "VisionTower",
    "apply_strength",
    "assemble",
    "broad_captions",
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
    "fit_readings",
    "from_clip_model",
    "has_words",
    "image_slots",
    "invert",
    "is_projection",
    "load_checkpoint",
    "load_file",
    "load_projection",
    "load_prompt",
    "load_weights",
    "lora_state",
    "null_prompt",
    "only",
    "phrases",
    "picture_direction",
    "picture_prompt",
    "pooled_strength",
    "portable_cutoff",
    "prompt_embeds",
    "read_clip_projections",
    "recipe",
    "refine",
    "save_checkpoint",
    "save_projection",
    "save_prompt",
    "shared_slots",
    "slot_conditioning",
    "spherical_mean",
    "swap",
    "text_projection_of",
    "training_config",
    "visual_direction",
    "vocabulary_words",
    "weighted",
    "weighted_mean",
    "without",
    "words_of",
]
