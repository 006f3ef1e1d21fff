"""The command line: one file per command. Only here is anything printed."""

import os

# pydantic looks for plugins in the metadata of every installed distribution, at 40 ms a start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
