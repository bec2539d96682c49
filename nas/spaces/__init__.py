"""Which networks may be tried: a space is one function, `SearchSpace.build`."""
