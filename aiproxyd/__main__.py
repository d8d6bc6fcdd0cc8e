"""`python -m aiproxyd` is `aiproxyd`."""

import sys

from aiproxyd.cli import main

if __name__ == "__main__":
    sys.exit(main())
