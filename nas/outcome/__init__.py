"""The winner: chosen again from scratch, tested once, handed over."""
