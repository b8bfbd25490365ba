"""Workflows to load in ComfyUI, and the programs that run them without its page."""
