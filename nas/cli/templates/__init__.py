"""The templates of ``nas plugins new``: working plugins, in which only the names are replaced."""
