"""From a path, address or id to queries, passages, runs and judgments."""
