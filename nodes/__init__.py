"""The nodes: thin declarations over `projection`. Importing this needs ComfyUI."""

from . import embed, host, load_save

NODES = [*load_save.NODES, *embed.NODES]


def extension() -> host.ComfyExtension:
    """What ComfyUI loads: makes the folder kind known and lists the nodes."""
    host.register_projections_folder()
    return host.extension_of(NODES)
