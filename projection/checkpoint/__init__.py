"""Unfinished training runs on disk."""
