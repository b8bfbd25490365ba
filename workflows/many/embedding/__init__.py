"""Prompts of a collection as rows of Parquet files, without ComfyUI."""
