//! One pinned mTLS HTTP/2 connection to a master.
