"""From queries, passages, runs and judgments to the `Batch` of a step."""
