"""The search space: genotypes, the networks that they become at a size, and the published ones."""
