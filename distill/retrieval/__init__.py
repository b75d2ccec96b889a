"""First-stage runs, by BM25 and by encoders, and their fusion."""
