"""A trained miniature of Stable Diffusion 1.5: its world, its weights, its widening, its judge."""
