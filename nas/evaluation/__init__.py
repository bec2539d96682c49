"""Where networks are trained, and for how long."""
