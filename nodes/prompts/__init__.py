"""Prompts whose slots hold different vectors: made of several pictures, saved and loaded."""
