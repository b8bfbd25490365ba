"""What training reads: images, encoded prompts, and the batches that are drawn from them."""
