"""cars-hw."""
