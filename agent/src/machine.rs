//! The machine the agent runs on: what tells it from another one, and what it calls itself.

use std::{collections::BTreeSet, fs, net::Ipv4Addr};

/// What identifies a machine and one run of the agent on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The contents of `/etc/machine-id`.
    pub machine_id: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Made anew when the agent's process started.
    pub instance_id: [u8; 16],
    /// The machine's own name.
    pub hostname: String,
    /// Such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// Reads the machine this process runs on. What cannot be read is empty.
    #[must_use]
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        Self {
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            instance_id: *uuid::Uuid::new_v4().as_bytes(),
            hostname: uname.nodename().to_string_lossy().into_owned(),
            os: pretty_name(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            kernel: uname.release().to_string_lossy().into_owned(),
        }
    }
}

/// The addresses this machine has itself, and those of its gateways. What cannot be read is left out.
pub(crate) fn own_addresses() -> BTreeSet<Ipv4Addr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut addresses = local(&read("/proc/net/fib_trie"));
    addresses.extend(gateways(&read("/proc/net/route")));
    addresses
}

/// The local addresses in the kernel's table of routes: each a leaf, and in the next line what it is.
fn local(fib_trie: &str) -> BTreeSet<Ipv4Addr> {
    let lines = fib_trie.lines().map(str::trim);
    lines
        .clone()
        .zip(lines.skip(1))
        .filter(|(_, what)| what.starts_with("/32 host LOCAL"))
        .filter_map(|(leaf, _)| leaf.strip_prefix("|-- ")?.parse().ok())
        .collect()
}

/// The gateways in the kernel's list of routes, which writes addresses in the byte order of the machine.
fn gateways(route: &str) -> BTreeSet<Ipv4Addr> {
    let gateway = |line: &str| {
        let field = line.split_whitespace().nth(2)?;
        let address = Ipv4Addr::from(u32::from_str_radix(field, 16).ok()?.to_ne_bytes());
        (!address.is_unspecified()).then_some(address)
    };
    route.lines().skip(1).filter_map(gateway).collect()
}

fn line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().chars().take(64).collect()
}

fn pretty_name(os_release: &str) -> String {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.unwrap_or("Linux").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_from_another_by_what_can_be_read_of_it() {
        let (one, two) = (Machine::read(), Machine::read());
        assert_eq!((&one.machine_id, &one.boot_id), (&two.machine_id, &two.boot_id));
        assert!(!one.boot_id.is_empty() && !one.kernel.is_empty());
        assert_ne!(one.instance_id, two.instance_id, "two runs must differ");
    }

    #[test]
    fn its_own_addresses_and_its_gateways_are_read_from_the_kernels_tables() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.0\n        /24 link UNICAST\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(local(trie), BTreeSet::from([[192, 0, 2, 7].into()]));
        let at = u32::from_ne_bytes([192, 0, 2, 1]);
        let route = format!(
            "Iface\tDestination\tGateway\tFlags\neth0\t00000000\t{at:08X}\t0003\neth0\t000200C0\t00000000\t0001\n"
        );
        assert_eq!(gateways(&route), BTreeSet::from([[192, 0, 2, 1].into()]));
        assert!(own_addresses().contains(&Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn the_systems_own_name_is_taken_without_its_quotes() {
        assert_eq!(
            pretty_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        assert_eq!(pretty_name(""), "Linux");
    }
}
