"""Linux boards over ssh."""
