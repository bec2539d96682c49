"""The network that is handed over."""
