"""Commands of this plugin, a file each."""
