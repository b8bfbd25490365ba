"""Maps regressed on encoded captions, and the captions for it."""
