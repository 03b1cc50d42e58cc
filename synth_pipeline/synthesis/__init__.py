"""From fitted generators to datasets: rejection, scenarios, partitioned Parquet, exports."""
