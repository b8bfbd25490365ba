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
plain CONDITIONING, as CLIP Text Encode gives.

- **strength** below 1 follows the picture more loosely.
- **crop** `none` keeps the borders of a wide or tall picture.
{_FILES}"""

EDIT = f"""## Picture and text

The text steers the picture: here it is set in the snow.

- **text_weight**: 0.6 as in the paper. Higher values follow the text more, lower the picture.
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

- **strength** of the lower node: start low; at 1 it removes what both pictures share.
{_FILES}"""

TWO_REGIONS = f"""## Two pictures, two regions

One picture steers the left part, another the right part. The parts overlap in the middle, where
both are mixed.

- **width** and **x** of the Set Area nodes are parts of the whole width.
- A text on either node changes its own side only.
{_FILES}"""

FIT_ON_A_FOLDER = f"""## Fit a projection to a domain

From about 100 pictures of one kind (a photographer, a product, a cartoon), for other pictures of
that kind. The help of **Fit Projection** says what to expect.

- Put the pictures into a folder inside ComfyUI's `input` folder and choose it in **Load Image
  (from Folder)**. Older versions of ComfyUI: use **Load Image Dataset from Folder** instead.
- **Save Projection** writes `fitted_00001_.safetensors` into `models/projections`; the workflow
  *use_a_fit* loads it. It also writes a LoRA where **save_lora** is on.
- A second folder, of other pictures, on **regularization_image**: the model keeps drawing those as
  before.
- Below **Fit Projection** is the loss curve: training stops when the held-out loss no longer falls.
- Interrupted? Run the graph again: the fit resumes.
- The picture on the left tests the result and is not trained on.
{_FILES}"""

USE_A_FIT = f"""## Use a saved fit

One projection, in two places: **Image To Prompt Embed** computes the prompt with it, and
**Apply Projection** adds its weight changes to the model.

- Choose your own file in **Load Projection**; the workflow *fit_on_a_folder* makes one.
- **strength** of Apply Projection: lower it for more freedom.
{_FILES}"""

REFINE_AND_VARY = f"""## Refine on a picture, then vary it

30 training steps on the picture itself: what no caption states, such as place and size, carries
over.

- The training runs once; new seeds of **KSampler** only sample. The curve shows the loss.
- **steps**: more steps follow the picture more closely.
- To keep it, connect **Save Projection** to PROJECTION.
{_FILES}"""

REFINE_AND_EDIT = f"""## Refine on a picture, then edit it

As *refine_and_vary*, with a text that changes what was learnt.

- Write the text in **keep_texts** of **Online Refine** too: the model then keeps
  responding to it.
- If the text is ignored use fewer **steps**, or raise **text_weight**.
- If too little of the picture is left, lower **text_weight**.
{_FILES}"""

MIX_TWO_PICTURES = f"""## One picture with the style of another

The prompt is the upper picture's with the style of the lower one. Not yet judged on a real model.

- **concept**: style, colours, place or subject; `own words` takes what your list in **words**
  names, like `oak, birch, pine, beech, willow`.
- **mode** `only this`: the upper picture's style alone, for a **text** that names the rest.
  `all but this`: the upper picture without it. Neither needs the lower picture.
- **amount**: lower it to keep more of the upper picture.
{_FILES}"""

LAYOUT = f"""## What stands where

The picture is cut into tiles; each tile's prompt acts on its part of the canvas, with the prompt
of the whole picture under all of them.

- **tiles**: choose them so that each holds one thing: `2x1` is left and right.
- Give **Empty Latent Image** the proportions of the picture, so that tiles keep theirs.
- **whole**: higher joins the tiles better, lower keeps them apart.
- Each tile is one more pass of the model on its area. **mode** `slots` costs nothing, mixes what
  the tiles show and keeps no places.
{_FILES}"""

BLOCKS = f"""## Style here, composition there

The picture's prompt acts in some blocks of the U-Net, the text in the others. The model stays as it
is.

- **preset** `style` is meant for the picture's style on what the text says, `composition` for the
  other way round. The blocks are those of IPAdapter_plus; not yet judged on a real model.
- **preset** `custom` with **weights**, for instance `output 3-8: 1, rest: 0.2`.
- Connect the text's own prompt to **base**; a negative needs no such node.
{_FILES}"""
