"""The paper's tables and figures, repeated by a command each."""
