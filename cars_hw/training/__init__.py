"""Training: of the shared weights of a search, and of single networks."""
