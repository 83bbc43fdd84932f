//! ZeroTier ids, clients of its local services, and a stateful fake.

pub mod ids;
