"""Files, arrays and caches on disk."""
