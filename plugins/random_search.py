"""The smallest strategy. A file in plugins/ is a plugin with the name of the file."""

from nas.strategies.strategy import Strategy


class RandomSearch(Strategy):
    """Draws every candidate uniformly from the space."""

    def ask(self, count):
        return [self.space.sample(self.rng) for _ in range(count)]
