"""Concepts: what a list of words has in common names a part of an image embedding."""
