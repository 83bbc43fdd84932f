//! The Picket agent daemon.
