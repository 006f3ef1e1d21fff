"""NetworkManager's own library, which reads keyfiles without a daemon."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # The importer of PyGObject 3.42 is of an older kind than Python likes.
    warnings.simplefilter("ignore", ImportWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    import gi

    gi.require_version("NM", "1.0")
    from gi.repository import NM, GLib


def read(text: str) -> NM.Connection:
    """The connection that `text` is; whatever libnm would only warn of is an error."""
    keyfile = GLib.KeyFile()
    keyfile.load_from_data(text, len(text.encode()), GLib.KeyFileFlags.NONE)
    warnings_: list[object] = []

    def warned(*what: object) -> bool:
        warnings_.append(what)
        return False

    connection = NM.keyfile_read(keyfile, "/", NM.KeyfileHandlerFlags.NONE, warned, None)
    assert not warnings_
    assert connection.verify()
    return connection
