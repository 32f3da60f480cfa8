"""ComfyUI node pack: real-time video-to-video with Live2Diff on any SD1.5 model.

ComfyUI calls `comfy_entrypoint` when it loads the pack; nothing else is imported before that.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():  # noqa: ANN201 (the host's type must not be imported here)
    """Return the extension that holds the nodes."""
    from .nodes import Live2DiffExtension

    return Live2DiffExtension()
