"""The client of a running ComfyUI, which the command queue_folder brings."""

from folder_queue.answers import Progress, PromptResult
from folder_queue.client import ComfyClient, Graph
from folder_queue.errors import PromptError

__all__ = ["ComfyClient", "Graph", "Progress", "PromptError", "PromptResult"]
