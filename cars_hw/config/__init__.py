"""Settings: every setting of the program, presets and recipes, and how files hold them."""
