"""ComfyUI's model, VAE and conditionings behind plain callables."""
