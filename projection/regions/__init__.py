"""Parts of a picture: patches that a mask leaves to CLIP's attention, and tiles of a canvas."""
