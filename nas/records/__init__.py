"""What is remembered: the journal is the truth, everything else is a view of it."""
