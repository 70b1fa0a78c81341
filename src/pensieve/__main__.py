"""`python -m pensieve` is the command `pensieve`."""

import sys

from pensieve.cli.main import main

sys.exit(main())
