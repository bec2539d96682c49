"""What ``nas plugins new`` writes: working plugins, in which only the names are replaced."""
