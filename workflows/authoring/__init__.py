"""Builds the workflow files and their thumbnails."""
