"""Work inside a foreign-architecture tree: native tools in the guest's place, so that little is emulated."""
