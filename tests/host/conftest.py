"""The real ComfyUI, in this process. IMAGE_TO_PROMPT_HOST names its folder.

Run by the host's own Python, since the host's packages are needed. Without the variable every
test here is skipped and says so.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from image_to_prompt.tests.host.in_process import make_importable

HOST = os.environ.get("IMAGE_TO_PROMPT_HOST")
HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items):
    if HOST:
        return
    skip = pytest.mark.skip(reason="no ComfyUI: IMAGE_TO_PROMPT_HOST is not set")
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def host_path() -> Path:
    return Path(HOST).expanduser().resolve()


@pytest.fixture(scope="session")
def kept() -> dict:
    """What several modules use and takes long to make; see `family_tools`."""
    return {}


@pytest.fixture(scope="session")
def host(host_path, tmp_path_factory):
    """The host with our nodes loaded as it would load them, on the CPU, with folders of its own."""
    make_importable(host_path)
    from comfy.cli_args import args

    args.cpu = True
    import folder_paths

    folders = tmp_path_factory.mktemp("host")
    folder_paths.models_dir = str(folders / "models")
    for kind in ("text_encoders", "clip_vision"):
        (folders / "models" / kind).mkdir(parents=True)
        folder_paths.add_model_folder_path(kind, str(folders / "models" / kind), is_default=True)
    folder_paths.set_output_directory(str(folders / "output"))

    import image_to_prompt

    extension = asyncio.run(image_to_prompt.comfy_entrypoint())
    classes = asyncio.run(extension.get_node_list())
    return SimpleNamespace(
        path=host_path,
        folders=folders,
        nodes=sys.modules["image_to_prompt.nodes"],
        classes={node.define_schema().node_id: node for node in classes},
    )
