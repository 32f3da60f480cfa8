"""What a prompt that fails raises, under the name by which tests import it."""

from folder_queue.errors import PromptError

__all__ = ["PromptError"]
