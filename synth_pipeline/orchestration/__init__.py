"""Dagster's face of the verbs: partitions, assets, checks, resources. The only importer of dagster."""
