"""Finds, starts and talks to a ComfyUI."""
