"""`python -m piimage.guest.blinkt`: the command, for a look at it where no bar is."""

import sys

from .command import main

sys.exit(main())
