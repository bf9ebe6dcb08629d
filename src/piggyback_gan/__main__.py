"""python -m piggyback_gan: the command line."""

import sys

from piggyback_gan.cli.main import main

sys.exit(main())
