"""``python -m spikevideoformer`` is the ``svf`` command."""

import sys

from spikevideoformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
