"""Memory of steps by a model of shapes and layouts, and the layout and devices that it chooses."""
