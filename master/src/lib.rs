//! The Picket master daemon.
