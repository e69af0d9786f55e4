"""Policies: networks, samplers, guidance and encoders behind one port."""
