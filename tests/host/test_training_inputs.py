"""Unfit inputs of the training nodes: a clear error before any work, and nothing touched.

Random weights: wiring only.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from image_to_prompt.projection import FullDelta, ImageToPromptError, UNetDeltas, from_clip_model
from image_to_prompt.tests.host import small_models
from image_to_prompt.tests.host.training_tools import make_tools, predicted, weights

NAN = float("nan")


@pytest.fixture(scope="module")
def tools(host):
    return make_tools(host)


@pytest.fixture(autouse=True)
def no_work(tools, monkeypatch):
    """Fails if any model is run, and if the U-Net is not as before in the end."""
    import comfy.model_management

    def run(*_, **__):
        raise AssertionError("a model was loaded before the inputs were checked")

    before = weights(tools.model.model)
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", run)
    monkeypatch.setattr(comfy.model_management, "load_model_gpu", run)
    yield
    monkeypatch.undo()
    assert all(
        torch.equal(value, before[name]) for name, value in weights(tools.model.model).items()
    )


def refused(tools, says: str, node: str = "refine", **changed):
    with pytest.raises(ImageToPromptError, match=says):
        getattr(tools, node)(**changed)


PICTURES = {
    "no picture": (torch.zeros(0, 64, 64, 3), "socket image"),
    "not a picture": (None, "NoneType"),
    "NaN": (torch.full((1, 64, 64, 3), NAN), "finite"),
    "tiny": (torch.zeros(1, 32, 64, 3), "64x32"),
    "huge": (torch.zeros(1, 64, 1, 3).expand(1, 64, 20000, 3), "20000x64"),
    "long": (torch.zeros(1, 64, 1000, 3), "1000x64"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_cannot_be_trained_on(tools, name):
    picture, says = PICTURES[name]
    refused(tools, says, image=picture)
    refused(tools, says, "fit", image=[tools.picture, tools.picture, picture])


@pytest.mark.parametrize("images", [[], [torch.zeros(1, 64, 64, 3)]], ids=["none", "one"])
def test_too_few_pictures_for_a_fit(tools, images):
    refused(tools, "pictures", "fit", image=images)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"steps": -1}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"preset": "everything"}, "embedding"),
        ({"learning_rate": NAN}, "learning_rate"),
        ({"learning_rate": 7.0}, "learning rate"),
        ({"learning_rate": -1.0}, "learning rate"),
        ({"crop": "left"}, "crop"),
        ({"size": 8}, "size"),
        ({"memory": "none"}, "memory"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(tools, changed, says):
    refused(tools, says, **changed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"epochs": -1}, "epochs"), ({"patience": 0}, "patience"), ({"held_out": 0.9}, "held_out")],
    ids=str,
)
def test_settings_of_a_fit_that_make_no_sense(tools, changed, says):
    refused(tools, says, "fit", **changed)


@pytest.mark.parametrize("socket", ["model", "vae", "clip", "clip_vision", "projection"])
def test_a_socket_without_what_it_needs_is_named(tools, socket):
    refused(tools, f"socket {socket}", **{socket: None})
    refused(tools, f"socket {socket}", "fit", **{socket: None})


def test_a_vae_of_another_family(tools):
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    state = {
        name: weight.clone() for name, weight in TAESD(latent_channels=16).state_dict().items()
    }
    refused(tools, "16 latent channels", vae=comfy.sd.VAE(sd=state))


def test_models_of_other_families(tools):
    import comfy.model_patcher

    sdxl = tools.model.clone()
    sdxl.model = Stand(tools.model.model, num_classes="sequential")
    refused(tools, "more inputs than SD 1.x", model=sdxl)
    inpainting = tools.model.clone()
    inpainting.model = Stand(tools.model.model, in_channels=9)
    refused(tools, "of 9 channels", model=inpainting)
    plain = torch.nn.Module()
    plain.diffusion_model = torch.nn.Linear(2, 2)
    cpu = torch.device("cpu")
    refused(tools, "without such", model=comfy.model_patcher.ModelPatcher(plain, cpu, cpu))


class Stand:
    """A model that says something else of its U-Net, which it shares."""

    def __init__(self, model, **said):
        class Unet:
            named_modules = model.diffusion_model.named_modules

        for name in ("num_classes", "in_channels"):
            setattr(Unet, name, said.get(name, getattr(model.diffusion_model, name)))
        self.diffusion_model, self.model_sampling = Unet, model.model_sampling


def test_a_projection_of_another_clip(tools):
    other = from_clip_model(small_models.reference_clip(4))
    refused(tools, "vision encoder", projection=other)


def test_a_projection_whose_changes_have_no_place(tools):
    unknown = UNetDeltas(
        {"input_blocks.11.1.transformer_blocks.0.attn2.to_k": FullDelta(torch.zeros(320, 768))}
    )
    refused(
        tools, r"input_blocks\.11", projection=replace(tools.projection, cross_attention=unknown)
    )


def test_a_model_that_has_a_projections_changes_already(tools):
    known = UNetDeltas(
        {"middle_block.1.transformer_blocks.0.attn2.to_k": FullDelta(torch.ones(320, 768))}
    )
    fitted = replace(tools.projection, cross_attention=known)
    node = tools.host.classes["ApplyProjection"]
    changed = node.execute(tools.model, fitted, 1.0).args[0]
    refused(tools, "checkpoint's MODEL", model=changed)
    for number in (NAN, float("inf")):
        with pytest.raises(ImageToPromptError, match="strength"):
            node.execute(tools.model, fitted, number)
    with pytest.raises(ImageToPromptError, match="socket model"):
        node.execute(None, fitted, 1.0)


def test_a_lora_of_a_projection_that_changes_no_model(tools, host):
    with pytest.raises(ImageToPromptError, match="save_lora"):
        host.classes["SaveProjection"].execute(tools.projection, "plain", True)
    assert not list((host.folders / "models").rglob("plain*"))


def test_the_models_still_work(tools, monkeypatch):
    monkeypatch.undo()
    assert torch.isfinite(predicted(tools.model)).all()


def test_text_least_squares_of_what_has_no_text_projection_is_refused(tools):
    ridge = replace(tools.projection, method="ridge")
    refused(tools, "LoadProjection", "fit", preset="text least squares", projection=ridge)


def test_automatic_memory_looks_at_every_picture(tools, host):
    from image_to_prompt.nodes.training.session import Models
    from image_to_prompt.projection import TrainingImages

    given = {k: v for k, v in tools.sockets().items() if k != "image"}
    models = Models(**given, memory="automatic")
    small, large = (TrainingImages((torch.zeros(4, n, n),), torch.zeros(1, 8)) for n in (8, 64))
    assert models.micro_batch_size(small, None, large) == models.micro_batch_size(large)
    assert (
        models.micro_batch_size(large)
        == models.denoiser.max_batch_size((64, 64))
        != models.micro_batch_size(small)
    )
