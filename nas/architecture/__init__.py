"""What a network is: plain data, without torch."""
