"""The trainer, its parameters and optimiser, presets and checkpoints."""
