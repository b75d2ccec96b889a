"""From a path, address or `ir_datasets` id to queries, passages, runs and judgments."""
