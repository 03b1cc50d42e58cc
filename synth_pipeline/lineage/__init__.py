"""Lineage: what was made from what, by which code, and where the record of it stands."""
