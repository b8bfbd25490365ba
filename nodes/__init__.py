"""The nodes: thin declarations over `projection`. Importing this needs ComfyUI."""

from . import apply, embed, fit, load_save, refine
from .host import api as host

NODES = [*load_save.NODES, *embed.NODES, *refine.NODES, *fit.NODES, *apply.NODES]


def extension() -> host.ComfyExtension:
    """What ComfyUI loads: makes the folder kind known and lists the nodes."""
    host.register_projections_folder()
    return host.extension_of(NODES)
