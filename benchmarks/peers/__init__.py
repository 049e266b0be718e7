"""Ways other than ours to do the work, written plainly in each library or calling it, and ours in its own module."""
