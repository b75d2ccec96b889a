"""Queries for a corpus that has none: written by an LLM, cleaned, checked, and mixed with logged ones."""
