"""Text encoders of SD 2.x, SDXL and its refiner: which family, one text, many captions."""
