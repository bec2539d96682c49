"""``python -m nas``."""

from nas.cli.start import main

if __name__ == "__main__":
    main()
