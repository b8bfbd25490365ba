"""Where results and their manifest are kept: a folder of this machine, or an fsspec URL."""
