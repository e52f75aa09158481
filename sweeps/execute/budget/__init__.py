"""Budget of a store: its caps, the cost of all attempts, and what drivers reserve before they submit."""
