"""Training: the shared weights of a search, and the networks that were chosen."""
