"""Image-to-Prompt for ComfyUI: any picture as plain CONDITIONING, by SD-IPC.

Only the entry point. Nothing is imported before the host asks for the nodes, so the package
`projection` stays usable where there is no ComfyUI, and tests can import it.
"""

WEB_DIRECTORY = "./nodes/web"


async def comfy_entrypoint() -> object:
    """Called by ComfyUI once, when it loads custom nodes."""
    from .nodes import extension

    return extension()
