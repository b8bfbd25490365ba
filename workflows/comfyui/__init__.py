"""Finds and starts a ComfyUI."""
