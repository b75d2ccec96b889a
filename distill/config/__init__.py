"""What a configuration may say: its keys, their rules, and how it is composed."""
