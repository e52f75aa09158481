"""Files that sources name: found, identified and read as documents."""
