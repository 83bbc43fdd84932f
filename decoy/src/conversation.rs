//! A connection read within bounds: so many bytes in all, so many a line, so long a silence.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time,
};

use crate::bounds::{CONNECTION_BYTES, IDLE_TIME};

/// Why a conversation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The peer closed its side.
    #[error("the peer closed")]
    PeerClosed,
    /// The decoy said goodbye, as the real service would have.
    #[error("said goodbye")]
    Goodbye,
    /// Nothing came for too long.
    #[error("idle")]
    Idle,
    /// The connection took too long in all.
    #[error("took too long")]
    TooSlow,
    /// A line or a packet was too long.
    #[error("line too long")]
    TooLong,
    /// The peer sent too many bytes in all.
    #[error("sent too much")]
    TooMuch,
    /// What came is not this protocol.
    #[error("not the protocol")]
    Nonsense,
    /// The connection broke.
    #[error("connection broke")]
    Broken,
    /// The decoy is stopping.
    #[error("stopping")]
    Stopping,
}

impl End {
    /// The words for the record.
    #[must_use]
    pub fn because(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer closed",
            Self::Goodbye => "goodbye",
            Self::Idle => "idle",
            Self::TooSlow => "took too long",
            Self::TooLong => "line too long",
            Self::TooMuch => "sent too much",
            Self::Nonsense => "not the protocol",
            Self::Broken => "connection broke",
            Self::Stopping => "stopping",
        }
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// One peer, within bounds.
pub struct Conversation<S> {
    stream: S,
    /// Received and not yet taken.
    pending: Vec<u8>,
    received: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    /// A conversation over a fresh connection.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            pending: Vec::new(),
            received: 0,
        }
    }

    /// Bytes that came so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received as u64
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the peer is gone, or takes nothing for [`IDLE_TIME`].
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), End> {
        let sending = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        match time::timeout(IDLE_TIME, sending).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(End::Idle),
        }
    }

    /// The next byte.
    ///
    /// # Errors
    /// When none comes within bounds.
    pub async fn byte(&mut self) -> Result<u8, End> {
        Ok(self.exactly(1).await?[0])
    }

    /// Whether a byte is there already, so that taking it does not wait.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next `count` bytes. The caller has checked that `count` is reasonable.
    ///
    /// # Errors
    /// When they do not come within bounds.
    pub async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.pending.len() < count {
            self.receive().await?;
        }
        Ok(self.pending.drain(..count).collect())
    }

    /// The next line without its end (`\n`, `\r\n`).
    ///
    /// # Errors
    /// When none of at most `longest` bytes comes within bounds.
    pub async fn line(&mut self, longest: usize) -> Result<Vec<u8>, End> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending[searched..].iter().position(|&byte| byte == b'\n') {
                let end = searched + at;
                if end > longest {
                    return Err(End::TooLong);
                }
                let mut line: Vec<u8> = self.pending.drain(..=end).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            searched = self.pending.len();
            if searched > longest {
                return Err(End::TooLong);
            }
            self.receive().await?;
        }
    }

    /// Waits until the peer closes, taking and dropping what it sends.
    pub async fn drain(&mut self) -> End {
        loop {
            self.pending.clear();
            if let Err(end) = self.receive().await {
                return end;
            }
        }
    }

    async fn receive(&mut self) -> Result<(), End> {
        let mut chunk = [0; 1024];
        let room = CONNECTION_BYTES - self.received;
        if room == 0 {
            return Err(End::TooMuch);
        }
        let room = room.min(chunk.len());
        match time::timeout(IDLE_TIME, self.stream.read(&mut chunk[..room])).await {
            Ok(Ok(0)) => Err(End::PeerClosed),
            Ok(Ok(count)) => {
                self.received += count;
                self.pending.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(End::Idle),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn lines_end_with_or_without_a_carriage_return() {
        let (mut peer, near) = duplex(256);
        peer.write_all(b"one\r\ntwo\n\nrest").await.unwrap();
        drop(peer);
        let mut talk = Conversation::new(near);
        assert_eq!(talk.line(80).await.unwrap(), b"one");
        assert_eq!(talk.line(80).await.unwrap(), b"two");
        assert_eq!(talk.line(80).await.unwrap(), b"");
        assert_eq!(talk.line(80).await, Err(End::PeerClosed));
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_given_up_at_its_limit() {
        let (mut peer, near) = duplex(4096);
        peer.write_all(&[b'a'; 100]).await.unwrap();
        assert_eq!(Conversation::new(near).line(80).await, Err(End::TooLong));
    }

    #[tokio::test]
    async fn a_peer_that_never_stops_is_cut_off() {
        let (mut peer, near) = duplex(4096);
        let mut talk = Conversation::new(near);
        let flood = async { while peer.write_all(&[b'a'; 1000]).await.is_ok() {} };
        let end = tokio::select! {
            () = flood => unreachable!("the near side is open"),
            end = talk.drain() => end,
        };
        assert_eq!(end, End::TooMuch);
        assert_eq!(talk.received(), CONNECTION_BYTES as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_left() {
        let (_peer, near) = duplex(16);
        assert_eq!(Conversation::new(near).line(80).await, Err(End::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_left() {
        let (_peer, near) = duplex(16);
        assert_eq!(Conversation::new(near).say([0; 100]).await, Err(End::Idle));
    }
}
