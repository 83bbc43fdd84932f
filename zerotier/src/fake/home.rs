//! Home directories for simulated nodes, so that other processes find them as they find real ones.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use super::{disk::Disk, lab::Lab};
use crate::{home::Token, ids::NodeId};

/// What a simulated node keeps in its home directory.
#[derive(Debug)]
pub struct HomeFiles {
    /// Where its service listens.
    pub address: SocketAddr,
}

impl Lab {
    /// Listens on a free loopback port for a node and writes `authtoken.secret`, `zerotier-one.port`,
    /// `zerotier-one.pid`, `identity.public` and, unless its id was chosen, `identity.secret` into its home. A token that
    /// is there is kept, and so are the networks of its controller, which are written there from here on.
    ///
    /// # Errors
    /// Fails when the port or a file cannot be had.
    pub async fn settle(&self, node: NodeId, home: &Path) -> io::Result<HomeFiles> {
        fs::create_dir_all(home)?;
        let kept = fs::read_to_string(home.join("authtoken.secret")).ok();
        match kept.and_then(|text| Token::new(text.trim())) {
            Some(token) => self.set_token(node, &token),
            None => write(&home.join("authtoken.secret"), self.token(node).expose(), 0o600)?,
        }
        let disk = Disk::of(home);
        let kept = disk.read();
        self.with(node, |machine| {
            for (network, hosted) in kept {
                machine.hosted.entry(network).or_insert(hosted);
            }
            machine.disk = Some(disk);
            machine.keep()
        })?;
        let address = self.listen(node, (Ipv4Addr::LOCALHOST, 0).into()).await?;
        if let Some(identity) = self.secret(node) {
            write(&home.join("identity.secret"), &identity.to_secret_text(), 0o600)?;
        }
        write(&home.join("identity.public"), &self.identity(node), 0o644)?;
        write(
            &home.join("zerotier-one.pid"),
            &std::process::id().to_string(),
            0o644,
        )?;
        // Last: whoever waits for the port finds the rest.
        write(
            &home.join("zerotier-one.port"),
            &address.port().to_string(),
            0o644,
        )?;
        Ok(HomeFiles { address })
    }

    /// Adds the node that has lived in a home directory, as it was, and returns it.
    #[must_use]
    pub fn readmit(&self, home: &Path) -> Option<NodeId> {
        let secret = fs::read_to_string(home.join("identity.secret")).ok();
        if let Some(identity) = secret.and_then(|text| text.trim_end().parse().ok()) {
            return Some(self.add_identity(identity));
        }
        let public = fs::read_to_string(home.join("identity.public")).ok()?;
        let id = public.split(':').next()?.parse().ok()?;
        self.add(id);
        Some(id)
    }
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    // A file that was there keeps its mode otherwise.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())
}
