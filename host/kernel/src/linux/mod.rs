//! The real kernel, by netlink and /proc.
