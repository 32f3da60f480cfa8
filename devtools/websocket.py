"""ComfyUI's websocket, which the command queue_folder brings."""

from folder_queue.errors import PromptError
from folder_queue.websocket import MessageReader

__all__ = ["MessageReader", "PromptError"]
