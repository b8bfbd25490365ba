"""What files hold of model families: readings and prompts as named tensors and numbers."""
