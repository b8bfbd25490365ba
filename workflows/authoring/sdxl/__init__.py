"""Workflows for SDXL."""
