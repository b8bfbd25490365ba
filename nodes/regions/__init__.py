"""Nodes that place prompts: on parts of the canvas, in blocks of the U-Net."""
