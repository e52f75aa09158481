"""Operations of sweeps: metrics, messages, a check of store and nodes, and a smoke run."""
