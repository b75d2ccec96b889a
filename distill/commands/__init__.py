"""One file a command: from a configuration to the rooms."""
