"""Guidance: wrappers that turn a denoiser or velocity into another one. Samplers never learn of them."""
