"""Sources of token ids: files of other trainers, read as they were meant or refused."""
