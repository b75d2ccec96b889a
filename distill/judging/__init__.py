"""Judgments where there are none: an LLM grades what rankings have found, and is compared with people."""
