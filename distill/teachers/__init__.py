"""LLMs and cross-encoders that rank lists for a student to learn from."""
