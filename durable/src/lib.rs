//! Files that survive a crash and that others cannot read.
