"""``python -m graphjit``."""

from graphjit.cli import main

if __name__ == "__main__":
    main()
