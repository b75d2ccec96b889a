"""From a `Batch` to scores; a model's directory, read and written."""
