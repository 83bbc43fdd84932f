//! Small static low-interaction decoy services.
