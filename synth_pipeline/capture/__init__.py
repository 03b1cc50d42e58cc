"""Raw bytes, kept as they came: the raw log, and the way of recorded files into it."""
