"""Every touch of ComfyUI."""
