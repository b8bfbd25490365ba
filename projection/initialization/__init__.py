"""Where LoRA deltas start: from the loss's gradient, from prompts, or from an earlier training."""
