"""The graph as data, and both of the formats that ComfyUI reads."""
