//! CA, certificates, pins, bundles and the two TLS verifiers.
