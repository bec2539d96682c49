"""The command line: flags become objects. Nothing heavy is imported until a command runs."""

import time

BEGUN = time.monotonic()  # of the command: from here on a time limit counts; Python itself needs 20 ms before
