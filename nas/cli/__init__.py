"""The command line: flags become objects. Nothing heavy is imported until a command runs."""

begun: float | None = None  # when the process of this command began (`time.monotonic`); None within other programs
