"""Typed ticks: from raw messages to sorted integer tables, the book rebuilt from them, and their files."""
