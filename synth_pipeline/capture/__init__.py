"""Raw bytes, kept as they came: the live recorder, and the way of recorded files into the raw store."""
