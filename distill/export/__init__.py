"""Trained models in the formats of other libraries, with their cards."""
