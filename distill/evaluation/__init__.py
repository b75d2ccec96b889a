"""From model and task to numbers and their files."""
