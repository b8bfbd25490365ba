"""Prompt embeddings to conditioning: slots, text, strength, and means of several pictures."""
