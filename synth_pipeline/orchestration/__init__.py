"""Dagster's face of the verbs: partitions, assets, checks, resources. The only importer of dagster."""

import atexit
import gc

# Python's last act is to look for cycles in all that was loaded: 0.8 s for Dagster's, in every run and command, though
# the system takes the memory back a moment later.
atexit.register(gc.freeze)
