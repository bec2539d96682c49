"""The smallest strategy: a file in plugins/ is found by its name."""

from nas.strategies.strategy import Strategy


class RandomSearch(Strategy):
    """Draws every candidate uniformly from the space."""

    def ask(self, count):
        return [self.space.sample(self.rng) for _ in range(count)]
