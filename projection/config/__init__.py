"""How to train: the configuration in parts, its presets, and the fields of earlier versions."""
