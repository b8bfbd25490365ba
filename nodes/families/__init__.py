"""Projections for SD 2.x, SDXL and its refiner: how they are made, and the prompts they give."""
