"""Training of the dual-system policy from recorded bags."""
