"""A miniature of Stable Diffusion 1.5 trained on a world of real drawings."""
