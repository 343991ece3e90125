"""Training: of the shared weights of a search, and of chosen networks by themselves."""
