"""`python -m fusefs.cli`, where the command is not installed."""

import sys

from fusefs.cli import main

sys.exit(main())
