"""Methods of a spec: their fields, their parts by name, interfaces of parts, and what cannot be combined."""
