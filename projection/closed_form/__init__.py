"""The inverse of CLIP's text projection (SD-IPC, section 3), and checks of what is inverted."""
