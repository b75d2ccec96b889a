"""First-stage runs."""
