"""Files: saved projections, CLIP checkpoints, and safe reading of either."""
