"""Sends API workflows to a ComfyUI that runs, and fetches what they save."""
