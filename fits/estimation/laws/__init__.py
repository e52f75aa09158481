"""Laws as fits see them: coordinates of order one for those that ship, and laws of the user's own."""
