"""Measurement: the order of sessions, their repetition and their statistics, the same for every device."""
