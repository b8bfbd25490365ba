"""Prompts as CONDITIONING: their entries, and the nodes that place and weight them."""
