"""The note on each workflow's page."""

_FILES = """
### Files

| file | folder |
|---|---|
| [v1-5-pruned-emaonly-fp16.safetensors](https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive) or any SD 1.x checkpoint | `models/checkpoints` |
| [model.safetensors](https://huggingface.co/openai/clip-vit-large-patch14) of openai/clip-vit-large-patch14 | `models/clip_vision` |

**Load CLIP Vision** and **Load Projection** read the same CLIP file. You may rename it.
"""  # noqa: E501

VARIATION = f"""## Image variation

The picture is the prompt. Nothing is trained and the model is not changed: the picture becomes
plain CONDITIONING, so every other node works with it.

- **strength** below 1 follows the picture more loosely.
- **crop** `none` sees the borders of a wide or tall picture too.
{_FILES}"""

EDIT = f"""## Picture and text

The text steers the picture: here it is set in the snow.

- **text_weight**: 0.6 as in the paper. Higher follows the text more, lower the picture.
- **blend** `add, keep length` is gentler at a high text_weight.
{_FILES}"""

SEVERAL_REFERENCES = f"""## One prompt from several pictures

What the pictures have in common, in one prompt. The order of the pictures does not matter.

- **image_weights**: a number for each picture; here the second counts half. Empty: all equal.
- For a third picture put another Batch Images behind the first.
- **images** `one prompt per image` instead makes one result per picture; set batch_size of
  Empty Latent Image to their number.
{_FILES}"""

NEGATIVE_PICTURE = f"""## A picture to stay away from

The lower picture is the negative prompt: the result moves away from what it shows.

- **strength** of the lower node: how far. Start low; at 1 it takes away what both pictures share.
{_FILES}"""

TWO_REGIONS = f"""## Two pictures, two regions

One picture steers the left part, another the right part. The parts overlap in the middle, where
both are mixed.

- **width** and **x** of the Set Area nodes are parts of the whole width.
- A text on either node changes its own side only.
{_FILES}"""
