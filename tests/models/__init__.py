"""Tiny models with random weights, in the layout of a hub snapshot."""
