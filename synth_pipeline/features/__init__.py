"""Ticks to features: the 0.5 s grid, windows of it, and the transforms that models are fitted on."""
