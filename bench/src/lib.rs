//! Thousands of real mTLS agents in one process.
