"""What training adds to the closed form: a residual on e, LoRA deltas, deep prompts."""
