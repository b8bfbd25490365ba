"""Prompts of whole collections of images."""
