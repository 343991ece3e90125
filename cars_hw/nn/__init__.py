"""Networks: candidate operations, one network, the SuperNet, and what a network costs."""
