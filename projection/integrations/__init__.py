"""CLIP models of transformers and U-Nets of diffusers, taken as they come."""
