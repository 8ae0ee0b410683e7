"""A pickle that runs code where it is read carelessly."""

import os
from pathlib import Path
from typing import Any


class Payload:
    """Makes a folder when it is unpickled the usual way."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)
