"""From a model and a task to numbers and their files."""
