//! How many connections fit into what the system allows this process to open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// For the store, the operators' connections, metrics and what else is open.
const OTHERS: u64 = 512;

/// Takes as many file descriptors as the system allows this process.
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the number of file descriptors stays what it is");
    }
}

/// How many connections agents may have open, of the `wanted`: the others always have descriptors left.
#[must_use]
pub fn connections(wanted: u32) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let most = share(limit, wanted);
    if most < usize::try_from(wanted).unwrap_or(usize::MAX) {
        tracing::warn!(
            most,
            "agents may have fewer connections open than agents.most_connections says: the system allows this process {} \
             file descriptors (LimitNOFILE= of its unit, or `ulimit -n`)",
            limit.unwrap_or_default()
        );
    }
    most
}

fn share(limit: Option<u64>, wanted: u32) -> usize {
    let fit = limit.map_or(u64::MAX, |limit| limit - OTHERS.min(limit / 2));
    usize::try_from(fit.min(wanted.into())).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_wanted_the_store_and_the_operators_have_descriptors_left() {
        assert_eq!(share(Some(131_072), 20_000), 20_000);
        assert_eq!(share(Some(4096), 20_000), 4096 - 512);
        assert_eq!(share(Some(256), 20_000), 128);
        assert_eq!(share(None, 20_000), 20_000);
    }
}
