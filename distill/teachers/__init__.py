"""Teachers that are asked here: listwise LLMs, and cross-encoders."""
