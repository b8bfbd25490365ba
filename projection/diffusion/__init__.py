"""The denoiser protocol, the noise arithmetic, the diffusion loss and its regularizers."""
