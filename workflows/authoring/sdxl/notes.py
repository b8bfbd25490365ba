"""The note on the page of each workflow for SDXL."""

_FILES = """
### Files

| file | folder |
|---|---|
| [sd_xl_base_1.0.safetensors](https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0) or any SDXL checkpoint | `models/checkpoints` |
| [model.safetensors](https://huggingface.co/openai/clip-vit-large-patch14) of openai/clip-vit-large-patch14 | `models/clip_vision` |

**Load CLIP Vision** and **Load Projection** read the same CLIP file. You may rename it.

**Load Projection** encodes 4,000 captions with the checkpoint's text encoders, once for each
checkpoint: set **corpus_size** to 1000 on a CPU.
"""  # noqa: E501
_SAVED = """
**Save Projection** keeps the result in `models/projections`: choose that file in
**Load Projection** and nothing is encoded again.
"""
_TRAINED = """
Choose in **Load Projection** a file that *SDXL variation* saved, and nothing is encoded again. Do
not choose what is saved here: training would go on from it.
"""

VARIATION = f"""## Image variation with SDXL

The picture is the prompt, for both text encoders of SDXL and its pooled vector. Nothing is trained
and the model is not changed. Not yet judged on the real SDXL.

- Connect 16 to 32 pictures of any kind to **image** and the vision model to **clip_vision** of
  **Load Projection**: their mean is taken out of every picture.
- **strength** below 1 follows the picture more loosely.
- **pads** `text encoder`: the picture takes one slot of each encoder.
{_FILES}{_SAVED}"""

EDIT = f"""## Picture and text with SDXL

The text steers the picture: here it is set in the snow. Text is added beside what all texts share,
so **text_weight** means about the same as with SD 1.x.

- **text_weight**: higher values follow the text more, lower the picture.
- **blend** `add, keep length` is gentler at a high text_weight.
{_FILES}{_SAVED}"""

REFINE = f"""## Refine SDXL on a picture, then vary it

30 training steps of LoRA on the picture itself: what no caption states, such as place and size,
carries over. Not yet judged on the real SDXL.

- **size** 1024: SDXL reads the size of a picture, so train at the size that you sample at.
- **memory** `automatic` uses gradient checkpointing where one picture at 1024 does not fit without;
  `low` takes one noisy picture at a time.
- The training runs once; new seeds of **KSampler** only sample. The curve shows the loss.
- **Save Projection** keeps what was trained; **Apply Projection** puts it on a model again. With
  **save_lora** it also writes a LoRA for core's Load LoRA.
{_FILES}{_TRAINED}"""
