"""The command line: flags become objects. Nothing heavy is imported until a command runs."""
