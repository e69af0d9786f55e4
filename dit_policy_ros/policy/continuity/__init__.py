"""Ways to join the chunks of a policy."""
