//! The ZeroTier identity of a machine that has none: made here, or brought in its bundle, before its service has run for
//! the first time.
//!
//! The node's id is known from then on and can be put on networks ahead. An identity that is there is never replaced.

use std::{io, path::PathBuf};

use picket_durable::{FileError, Owner};
use picket_zerotier::{
    NodeId,
    home::{Home, HomeError},
    identity::{Identity, IdentityError},
};

const SECRET: &str = "identity.secret";
const PUBLIC: &str = "identity.public";
const PUBLIC_MODE: u32 = 0o644;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeIdentity {
    /// The machine has no ZeroTier home.
    NoHome,
    /// It has an identity already, of this node.
    There(NodeId),
    /// One was made, for this node.
    Made(NodeId),
    /// The one that was brought was put into place, for this node.
    Placed(NodeId),
}

/// Why the machine has no ZeroTier identity.
#[derive(Debug, thiserror::Error)]
pub enum NodeIdentityError {
    /// The home cannot be looked into.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A public half without its private one: somebody else may have that.
    #[error(
        "{} is there without identity.secret; bring that back from a backup, or remove the public one to have another identity made", .0.display()
    )]
    Half(PathBuf),
    /// No identity could be made.
    #[error("make a ZeroTier identity")]
    Make(#[source] IdentityError),
    /// It could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Puts the identity that was brought into `home` when there is none, or makes one. Takes some hundred milliseconds, and
/// blocks on the disk.
///
/// # Errors
/// [`NodeIdentityError`].
pub fn provide(home: &Home, brought: Option<&Identity>) -> Result<NodeIdentity, NodeIdentityError> {
    match home.identity() {
        Ok(identity) => return Ok(NodeIdentity::There(identity.public().node())),
        Err(HomeError::NoDirectory { .. }) => return Ok(NodeIdentity::NoHome),
        Err(HomeError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let [secret, public] = [SECRET, PUBLIC].map(|name| home.directory().join(name));
    if picket_durable::is_there(&public)? {
        return Err(NodeIdentityError::Half(public));
    }
    let owner = Owner::of(home.directory())?;
    let made;
    let identity = match brought {
        Some(identity) => identity,
        None => {
            made = Identity::generate().map_err(NodeIdentityError::Make)?;
            &made
        }
    };
    match picket_durable::create_for(
        owner,
        &secret,
        identity.to_secret_text().as_bytes(),
        picket_durable::PRIVATE,
    ) {
        // The service was started meanwhile and made its own.
        Err(FileError::Write { cause, .. }) if cause.kind() == io::ErrorKind::AlreadyExists => {
            return Ok(NodeIdentity::There(home.identity()?.public().node()));
        }
        made => made?,
    }
    let text = identity.public().to_string();
    match picket_durable::create_for(owner, &public, text.as_bytes(), PUBLIC_MODE) {
        // The service writes it from the secret one.
        Err(FileError::Write { cause, .. }) if cause.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let node = identity.public().node();
    Ok(match brought {
        Some(_) => NodeIdentity::Placed(node),
        None => NodeIdentity::Made(node),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn an_identity_is_made_where_there_is_none_and_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path());
        let NodeIdentity::Made(node) = provide(&home, None).unwrap() else {
            panic!("there was one")
        };
        let secret = root.path().join(SECRET);
        let before = fs::read(&secret).unwrap();
        let mode = |name: &str| fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(SECRET), mode(PUBLIC)), (0o600, 0o644));
        let public = fs::read_to_string(root.path().join(PUBLIC)).unwrap();
        assert!(public.starts_with(&node.to_string()), "{public}");
        assert_eq!(provide(&home, None).unwrap(), NodeIdentity::There(node));
        assert_eq!(fs::read(&secret).unwrap(), before);
    }

    #[test]
    fn an_identity_that_was_brought_is_put_into_place_once_and_never_over_another() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path());
        let [brought, other] = [(); 2].map(|()| Identity::generate().unwrap());
        let node = brought.public().node();
        assert_eq!(
            provide(&home, Some(&brought)).unwrap(),
            NodeIdentity::Placed(node)
        );
        let secret = fs::read(root.path().join(SECRET)).unwrap();
        assert_eq!(secret, brought.to_secret_text().as_bytes());
        for identity in [&brought, &other] {
            assert_eq!(provide(&home, Some(identity)).unwrap(), NodeIdentity::There(node));
        }
        assert_eq!(fs::read(root.path().join(SECRET)).unwrap(), secret);
    }

    #[test]
    fn a_machine_without_zerotier_gets_none_and_half_an_identity_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let nowhere = Home::new(root.path().join("nowhere"));
        assert_eq!(provide(&nowhere, None).unwrap(), NodeIdentity::NoHome);
        assert!(!nowhere.directory().exists());
        fs::write(root.path().join(PUBLIC), "half").unwrap();
        let error = provide(&Home::new(root.path()), None).unwrap_err();
        assert!(error.to_string().contains("without identity.secret"), "{error}");
        assert!(!root.path().join(SECRET).exists());
    }

    #[test]
    fn a_damaged_identity_is_reported_and_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(SECRET), "nonsense").unwrap();
        assert!(matches!(
            provide(&Home::new(root.path()), None),
            Err(NodeIdentityError::Home(HomeError::Identity { .. }))
        ));
        assert_eq!(fs::read(root.path().join(SECRET)).unwrap(), b"nonsense");
    }
}
