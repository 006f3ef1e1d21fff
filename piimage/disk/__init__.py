"""Images as bytes: partition tables, file systems, slots, sparse files; and the libguestfs appliance."""
