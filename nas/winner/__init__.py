"""The trained winner: its files, predictions, and exports."""
