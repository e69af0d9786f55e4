"""Chunk mathematics: resample, splice, limit, stop. Free functions on numpy arrays."""
