//! The little of the Docker Engine that deckies need.

use std::{io, path::PathBuf, time::Duration};

use futures::{future::BoxFuture, stream::BoxStream};

use super::{
    Owner,
    form::{ContainerForm, NetworkForm},
    inventory::{ContainerId, EngineNetworkId, Inventory},
};

/// A Docker Engine. Every call has a deadline of its own; calls may run at the same time.
pub trait Engine: Send + Sync {
    /// Everything that carries the owner's label.
    fn inventory<'a>(&'a self, owner: &'a Owner) -> BoxFuture<'a, Result<Inventory, EngineError>>;

    /// What is known of an image that is here; nothing when it is not.
    fn image<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<Option<Image>, EngineError>>;

    /// Brings an image here from its registry.
    fn pull<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Makes a network.
    fn create_network<'a>(&'a self, form: &'a NetworkForm) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Removes a network. One that is not there is removed.
    fn remove_network<'a>(&'a self, id: &'a EngineNetworkId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Makes a container; a service joins the namespace of `base`.
    fn create<'a>(
        &'a self,
        form: &'a ContainerForm,
        base: Option<&'a ContainerId>,
        image: Image,
    ) -> BoxFuture<'a, Result<ContainerId, EngineError>>;

    /// Starts a container. One that runs is started.
    fn start<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Stops a container, by force after a moment of grace. One that is not there or does not run is stopped.
    fn stop<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Removes a container with its anonymous volumes. One that is not there is removed.
    fn remove<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), EngineError>>;

    /// An item whenever a container or network with the owner's label changes. Ends with an error when the engine
    /// goes away.
    fn events(&self, owner: &Owner) -> BoxStream<'static, Result<(), EngineError>>;
}

/// What is known of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Its containers need no writable file system.
    pub read_only: bool,
}

/// The engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing answers.
    #[error(
        "reach the Docker Engine at {}; start it (systemctl start docker), or name another socket in agent.toml",
        socket.display()
    )]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The socket is not for us.
    #[error(
        "the Docker Engine's socket {} does not let the agent in; add the agent's user to the group that owns it",
        socket.display()
    )]
    Denied {
        /// Where.
        socket: PathBuf,
    },
    /// The content will not do; asking again changes nothing.
    #[error("{tried}: the Docker Engine refuses it ({message})")]
    Refused {
        /// What was tried.
        tried: String,
        /// The engine's words.
        message: String,
    },
    /// No such image here or at its registry.
    #[error("get the image {image}; load it on this host, or name one that its registry has ({message})")]
    NoImage {
        /// Which.
        image: String,
        /// The engine's words.
        message: String,
    },
    /// It was there a moment ago, or is on its way out; the next look will tell.
    #[error("{tried}: something else changed it meanwhile ({message}); the next pass looks again")]
    Changed {
        /// What was tried.
        tried: String,
        /// The engine's words.
        message: String,
    },
    /// No answer in time.
    #[error("{tried}: no answer from the Docker Engine within {}s; see its log", after.as_secs())]
    TimedOut {
        /// What was tried.
        tried: String,
        /// How long.
        after: Duration,
    },
    /// It failed inside, or answered nonsense.
    #[error("{tried}: the Docker Engine failed ({message}); see its log")]
    Broken {
        /// What was tried.
        tried: String,
        /// The engine's words.
        message: String,
    },
}

impl EngineError {
    /// Whether asking again, unchanged, may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::NoImage { .. } => false,
            Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::Changed { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. } => true,
        }
    }
}
