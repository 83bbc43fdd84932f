//! The wire: protobuf messages and the domain types they convert into.
