"""Names of models by the parts of their tokenizers. Read in 0.3.64 and 0.33.0."""

from __future__ import annotations

from collections.abc import Set

_MODELS = (
    ({"l", "g"}, "SDXL"),
    ({"g"}, "SDXL"),
    ({"h"}, "SD 2.x"),
    ({"l", "g", "t5xxl"}, "SD3"),
    ({"l", "g", "t5xxl", "llama"}, "HiDream"),
    ({"l", "t5xxl"}, "Flux"),
)


def model_of(parts: Set[str]) -> str:
    """The model whose CLIP has tokens of these parts; what is known of others, as "T5-based"."""
    unknown = "T5-based" if "t5xxl" in parts else "another model's"
    return next((name for keys, name in _MODELS if keys == parts), unknown)
