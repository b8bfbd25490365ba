"""A miniature of SDXL trained on the world of drawings."""
