"""Sampling a fitted generator to datasets."""
