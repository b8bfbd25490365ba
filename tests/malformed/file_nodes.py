"""Malformed inputs of LoadProjection and SaveProjection: names, files, prefixes.

Each case is given tools by tests/host/test_malformed.py: `load` and `save` call a node with good
inputs but for those named; `validate` asks LoadProjection about a file name; `place` puts a file
into a model folder.
"""

from __future__ import annotations

import torch

from image_to_prompt.tests.fixtures import builders
from image_to_prompt.tests.malformed.case import Case
from image_to_prompt.tests.malformed.stand_ins import SIZE

NAN, INF = float("nan"), float("inf")

# --- LoadProjection ---------------------------------------------------------------------------


def _placed(name: str, says: tuple[str, ...], content, kind: str = "text_encoders") -> Case:
    """A bad file in a model folder, chosen on the node. content: tensors or bytes."""

    def act(tools):
        return tools.load(file=tools.place(kind, content))

    return Case(f"load: {name}", act, says)


def _load(name: str, says: tuple[str, ...], **bad: object) -> Case:
    return Case(f"load: {name}", lambda tools: tools.load(**bad), says)


FOLDERS = ("text_encoders", "clip_vision", "projections")
NAMES = ("gone.safetensors", "", "../clip.safetensors", "/etc/passwd", "a\0b", ".", "text_encoders")
LOADING = [
    *(
        Case(
            f"validate: the file {name!r}",
            lambda tools, n=name: tools.validate(n),
            (repr(name), "clip-vit-large-patch14", "refresh", *FOLDERS),
        )
        for name in (*NAMES, None)
    ),
    *(_load(f"the file {name!r}", (repr(name), *FOLDERS), file=name) for name in NAMES),
    *(
        _load(f"method {value!r}", ("method among", "'pseudo-inverse'", repr(value)), method=value)
        for value in ("", "pinv", None, 3)
    ),
    *(
        _load(f"cutoff {value}", ("finite cutoff", str(value)), cutoff=value)
        for value in (NAN, INF, -INF, -0.3)
    ),
    *(_load(f"cutoff {value!r}", ("cutoff",), cutoff=value) for value in (None, "low")),
    _load("a cutoff above everything", ("largest singular value", "LoadProjection"), cutoff=9.0),
    _placed("a web page", ("safetensors", "LoadProjection"), b"<html>" * 99),
    _placed("an empty file", ("safetensors", "LoadProjection"), b""),
    _placed("a vision model", ("vision-only", "LoadProjection"), builders.vision_only()),
    _placed(
        "a vision model in its own folder",
        ("vision-only", "models/text_encoders"),
        builders.vision_only(),
        "clip_vision",
    ),
    _placed("an SD checkpoint", ("Stable Diffusion", "full CLIP"), builders.sd1_checkpoint()),
    _placed(
        "a text encoder",
        ("without its projection", "full CLIP"),
        builders.text_only(projection=False),
    ),
    _placed(
        "an identity",
        ("identity", "full CLIP"),
        {**builders.transformers_clip(), "text_projection.weight": torch.eye(SIZE)},
    ),
    _placed(
        "a web page among the projections",
        ("safetensors", "full CLIP"),
        b"<html>" * 9,
        "projections",
    ),
    _placed(
        "a LoRA among the projections",
        ("holds none of", "full CLIP"),
        {"lora_up.weight": torch.ones(4, 4)},
        "projections",
    ),
]

# --- SaveProjection ---------------------------------------------------------------------------

INSIDE = ("a file name inside the projections folder", "Correct filename_prefix")
SAVING = [
    *(
        Case(
            f"save: the prefix {prefix!r}",
            lambda tools, p=prefix: tools.save(filename_prefix=p),
            (*INSIDE, repr(prefix)),
        )
        for prefix in (
            "",
            " ",
            "\t",
            ".",
            "..",
            "../x",
            "../../x",
            "a/../../x",
            "a/b/../../../x",
            "/tmp/x",
            "/x",
            "..//x",
            "./../x",
            "a/..",
            "a\0b",
            "\0",
        )
    ),
    *(
        Case(
            f"save: the prefix {prefix!r}",
            lambda tools, p=prefix: tools.save(filename_prefix=p),
            ("filename_prefix", *says),
        )
        for prefix, says in (
            ("D:\\x", (*INSIDE, "drive")),
            ("\\\\srv\\x", (*INSIDE, "server")),
            ("name:stream", (*INSIDE, "colon")),
            ("CON", (*INSIDE, "device")),
            ("sub/lpt1.x", (*INSIDE, "device")),
            ("\udc80", INSIDE),
            ("a\x1bb", INSIDE),
            (None, ("as a text",)),
            (7, ("as a text",)),
        )
    ),
    *(
        Case(
            f"save: save_lora {value!r}",
            lambda tools, v=value: tools.save(save_lora=v),
            ("save_lora as true or false",),
        )
        for value in ("yes", None, 2, [])
    ),
    Case(
        "save: a prefix that is no text",
        lambda tools: tools.save(filename_prefix="a\ud800"),
        ("filename_prefix",),
    ),
    Case(
        "save: a prefix through a link that leads out",
        lambda tools: tools.save(filename_prefix=f"{tools.link_out()}/x"),
        INSIDE,
    ),
    Case(
        "save: a prefix of 300 letters",
        lambda tools: tools.save(filename_prefix="x" * 300),
        ("filename_prefix",),
    ),
    Case(
        "save: a prefix below a file",
        lambda tools: tools.save(filename_prefix=f"{tools.file_inside()}/x"),
        ("filename_prefix",),
    ),
    *(
        Case(
            f"save: projection {name}",
            lambda tools, v=value: tools.save(projection=v),
            ("a PROJECTION", got, "socket projection"),
        )
        for name, value, got in (
            ("nothing", None, "NoneType"),
            ("a file name", "p.safetensors", "str"),
            ("a matrix", builders.text_projection(), "Tensor"),
            ("a dictionary", {}, "dict"),
        )
    ),
]

CASES = [*LOADING, *SAVING]
