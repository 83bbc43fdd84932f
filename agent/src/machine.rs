//! The machine the agent runs on: what tells it from another one, and what it calls itself.

use std::fs;

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
    fn the_systems_own_name_is_taken_without_its_quotes() {
        assert_eq!(
            pretty_name("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        assert_eq!(pretty_name(""), "Linux");
    }
}
